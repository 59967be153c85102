"""How somebody proves to be the person whose data a request is about: a one-time code to a channel known before. Pure.

Only a keyed hash of the code is kept, bound to its request. A code lives for half an hour and dies of five wrong
answers; a request gets five codes. So whoever guesses has a chance of one in four million, and whoever reads the
ledger learns nothing. Nothing in the answers tells whether the person is known: a code that had nowhere to go looks
like one that was sent.
"""

from __future__ import annotations

import hmac
import re
from typing import Final, Protocol

from kiki.clock import SECOND
from kiki.errors import Conflict, IdentityDenied, InvalidInput
from kiki.shield.subject_request import SubjectRequest

CODE_DIGITS: Final = 8
CODE_LIFE: Final = 30 * 60 * SECOND
ATTEMPTS_MAX: Final = 5
CODES_MAX: Final = 5

_CODE = re.compile(rf"[0-9]{{{CODE_DIGITS}}}", re.ASCII)


class IdentityChannel(Protocol):
    """Sends codes to where the person was known to be reached before the request came: never to what it names."""

    def send(self, customer: str, code: str, request: str) -> None:
        """Send the code, or do nothing when no channel of the customer is known. Whatever it raises goes to the caller."""
        ...


def new_code(number: int) -> str:
    """The code of a random number below `10 ** CODE_DIGITS`."""
    return f"{number:0{CODE_DIGITS}d}"


def code_text(request: str, code: str) -> str:
    """What the keyed hash is taken of: a code is good for one request."""
    return f"identity code {request} {code}"


def parse_code(given: object) -> str:
    """The digits of a code, with the spaces and dashes that people put between them; raises `InvalidInput`."""
    plain = re.sub(r"[ -]", "", given) if isinstance(given, str) and len(given) <= 3 * CODE_DIGITS else ""
    if _CODE.fullmatch(plain):
        return plain
    raise InvalidInput(f"a code has {CODE_DIGITS} digits")


def require_code_left(request: SubjectRequest) -> None:
    """Raise `Conflict` when no more codes are sent for this request."""
    if request.codes >= CODES_MAX:
        raise Conflict(
            f"{CODES_MAX} codes were sent for request {request.id} and none was answered",
            hint="let an operator check the person's identity in another way",
        )


def is_right_code(request: SubjectRequest, digest: bytes, now: int) -> bool:
    """Whether this is the keyed hash of the code that was sent last.

    Raises `IdentityDenied` when there is none that can still be answered.
    """
    sent = request.code
    if sent is None or now > (sent.until or 0) or request.code_failures >= ATTEMPTS_MAX:
        raise IdentityDenied(
            "no code is waiting for an answer: none was sent, it is too old, or it was tried too often",
            hint="ask for a new code",
        )
    return hmac.compare_digest(sent.digest, digest)
