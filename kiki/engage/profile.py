"""A customer as engage knows one: how to reach them, and what they did so far. Pure.

A profile says nothing about permission: consent lives in the shield, suppression in engage's own store. What a shop
or a CRM believes about marketing (`email_marketing`, `sms_marketing`) can only forbid, never allow.
Money is micros of the shop's one currency; moments are microseconds since the epoch, and an absent one is None,
never the beginning of time.
"""

from __future__ import annotations

from typing import Final

import msgspec

ID_CHARS_MAX: Final = 200
"""The longest customer id."""
PERSONAL_FIELDS: Final = ("email", "phone", "first_name", "last_name")
"""What is sealed under the person's own key wherever a profile is kept."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One customer."""

    customer: str
    """The id, the same as in the shield's scope `customer:…`: the source's own stable id, never an address."""

    email: str = ""
    phone: str = ""
    """E.164: +15551234567."""
    first_name: str = ""
    last_name: str = ""

    locale: str = ""
    """BCP 47: de-CH. Empty: not known."""
    zone: str = ""
    """IANA: Europe/Zurich. Empty: not known."""
    country: str = ""
    """ISO 3166-1 alpha-2, upper case. Empty: not known."""
    tags: tuple[str, ...] = ()
    """Sorted, each once."""
    segment: str = ""
    """What the source calls the customer's segment."""
    is_test: bool = False
    """Somebody who is never counted and never contacted."""
    email_marketing: bool | None = None
    """What the source says: False forbids; True and None (not asked) leave it to the shield's consent."""
    sms_marketing: bool | None = None

    total_spend: int = 0
    """Micros."""
    purchase_count: int = 0
    last_purchase: int | None = None
    last_engagement: int | None = None
    """The last open, click or visit."""
    engagement_score: float = 0.0
    """0 to 10, as the source rates it."""

    changed_at: int = 0
    """When the source last changed it: an older version never replaces a newer one. 0: the source does not say."""

    def without_personal(self) -> Profile:
        """The same customer without a way to reach or name them."""
        return msgspec.structs.replace(self, email="", phone="", first_name="", last_name="")

    def __repr__(self) -> str:
        """Names nobody: profiles end up in error messages."""
        return "Profile(…)"

    def __str__(self) -> str:
        return repr(self)
