"""The words of consent as callers write them: purposes, bases, methods, ids and texts, read and refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from kiki.errors import InvalidInput
from kiki.shield.consent import Basis, Method, State

PURPOSES: Final = ("marketing", "analytics", "targeting", "profiling", "data_sharing")
SIGNAL_PURPOSES: Final = ("data_sharing", "targeting")
"""What Global Privacy Control opts out of: sale and sharing, and what sharing is for (11 CCR 7025)."""
SAID_METHODS: Final = tuple(each for each in Method if each not in {Method.GPC, Method.IMPORT})
"""How a person can say something; the other two are how an opt-out signal and a list are written down."""

CUSTOMER_LENGTH_MAX: Final = 256
TEXT_LENGTH_MAX: Final = 64
AGENT_LENGTH_MAX: Final = 256
NOTE_LENGTH_MAX: Final = 4096
NOTICE_LENGTH_MAX: Final = 65_536

_PURPOSE = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


def parse_purposes(configured: Iterable[str]) -> tuple[str, ...]:
    """The purposes there are: those that always are, and the configured ones. Raises `InvalidInput`."""
    found = dict.fromkeys(PURPOSES)
    for name in configured:
        if not _PURPOSE.fullmatch(name) or name == "none":  # a policy writes none for no purpose
            raise InvalidInput(
                f"{_shown(name)} cannot name a purpose: write 1 to 32 of a-z, 0-9 and _, beginning with a letter"
            )
        found[name] = None
    return tuple(found)


def parse_purpose(given: object, purposes: Collection[str] = PURPOSES) -> str:
    """One of the purposes; raises `InvalidInput` that lists them."""
    if isinstance(given, str) and given in purposes:
        return given
    raise InvalidInput(f"{_shown(given)} is not a purpose: write one of {', '.join(purposes)}")


def parse_customer_id(given: object) -> str:
    """The id of a customer as it stands; raises `InvalidInput` unless it is 1 to 256 printable characters."""
    if isinstance(given, str):
        if 1 <= len(given) <= CUSTOMER_LENGTH_MAX and given.isprintable() and given != "*":
            return given
        if not given:
            raise InvalidInput("the customer id is empty: name who it is about")
        if len(given) > CUSTOMER_LENGTH_MAX:
            raise InvalidInput(
                f"a customer id of {len(given)} characters is too long: at most {CUSTOMER_LENGTH_MAX} are accepted"
            )
    # Never the id itself: whoever mistyped it may have typed a name.
    raise InvalidInput(f"a customer id is 1 to {CUSTOMER_LENGTH_MAX} printable characters, and not a lone *")


def parse_basis(given: object) -> Basis:
    """The legal basis, also as people write it (`Legitimate interests`); raises `InvalidInput`."""
    if isinstance(given, str):
        folded = given.strip().lower().replace(" ", "_").replace("-", "_")
        folded = {"legitimate_interest": "legitimate_interests", "vital_interest": "vital_interests"}.get(
            folded, folded
        )
        with suppress(ValueError):
            return Basis(folded)
    raise InvalidInput(f"{_shown(given)} is not a legal basis: write one of {', '.join(Basis)}")


def parse_method(given: object) -> Method:
    """How something was said; raises `InvalidInput`."""
    with suppress(ValueError):
        return Method(given)  # type: ignore[arg-type]  # what is no text is no member either
    raise InvalidInput(f"{_shown(given)} is not a method: write one of {', '.join(SAID_METHODS)}")


def parse_state(given: object) -> State:
    """A state that can be said; raises `InvalidInput`."""
    said = (State.GRANTED, State.DENIED, State.REVOKED)
    folded = given.lower() if isinstance(given, str) else given
    if isinstance(folded, str) and folded in said:
        return State(folded)
    raise InvalidInput(f"{_shown(given)} is not something a person says: write one of {', '.join(said)}")


def parse_text(given: object, what: str, longest: int = TEXT_LENGTH_MAX, *, lines: bool = False) -> str:
    """A short text such as a version, or one of several `lines`; empty for None. Raises `InvalidInput`."""
    if given is None:
        return ""
    if isinstance(given, str) and len(given) <= longest:
        plain = given.replace("\n", " ").replace("\r", " ").replace("\t", " ") if lines else given
        if plain.isprintable():
            return given
    raise InvalidInput(f"the {what} is not acceptable: at most {longest} printable characters")


def parse_digest(given: object) -> bytes:
    """SHA-256 written as 64 hexadecimal digits; empty for none. Raises `InvalidInput`."""
    if given is None or given == "":
        return b""
    if isinstance(given, str) and re.fullmatch(r"[0-9a-fA-F]{64}", given):
        return bytes.fromhex(given)
    raise InvalidInput("the SHA-256 of a notice is 64 hexadecimal digits")


def signal_of(values: Iterable[str]) -> bool:
    """Whether these values of `Sec-GPC` headers are an opt-out: one of them is exactly `1` (GPC section 3.2)."""
    return any(value == "1" for value in values)


def _shown(value: object) -> str:
    return repr(value[:40]) if isinstance(value, str) else f"a value of the type {type(value).__name__}"
