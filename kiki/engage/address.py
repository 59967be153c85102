"""Addresses as they are compared: the same mailbox or telephone is the same text, however it was typed. Pure."""

from __future__ import annotations

from typing import Final

from kiki.engage.profile import Profile

EMAIL: Final = "email"
SMS: Final = "sms"
ADDRESS_CHARS_MAX: Final = 320


def normal_email(text: str) -> str:
    """Lower case, without blanks around; empty for what is no address."""
    text = text.strip().lower()
    local, at, domain = text.rpartition("@")
    good = (
        bool(at and local and "." in domain) and len(text) <= ADDRESS_CHARS_MAX and not any(c.isspace() for c in text)
    )
    return text if good and text.isprintable() else ""


def normal_phone(text: str) -> str:
    """E.164 with its plus; empty for what has none or is no number."""
    digits = "".join(letter for letter in text if letter not in " -().\u00a0")
    return (
        digits if digits[:1] == "+" and digits[1:].isascii() and digits[1:].isdigit() and 7 <= len(digits) <= 16 else ""
    )


def normal_address(text: str) -> tuple[str, str]:
    """The kind of an address (`email`, `phone`) and the address; both empty for neither."""
    if email := normal_email(text):
        return "email", email
    phone = normal_phone(text)
    return ("phone", phone) if phone else ("", "")


def address_on(profile: Profile, channel: str) -> str:
    """Where a message on this channel goes; empty: nowhere. A channel of one's own is told the customer's id."""
    if channel == EMAIL:
        return normal_email(profile.email)
    if channel == SMS:
        return normal_phone(profile.phone)
    return profile.customer


def source_forbids(profile: Profile, channel: str) -> bool:
    """Whether the shop or CRM says that this person must not be written to on the channel."""
    if channel == EMAIL:
        return profile.email_marketing is False
    return channel == SMS and profile.sms_marketing is False
