"""One HTTP exchange with somebody whom we need not trust: bounded in time and size, and silent about secrets."""

from __future__ import annotations

import time
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from kiki.errors import AnchorUnavailable

WHOLE_SECONDS: Final = 20.0
_SILENT_SECONDS: Final = 10.0
_ANSWER_BYTES: Final = 1 << 18


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    media_type: str
    body: bytes


def post(url: str, body: bytes, media_type: str) -> Answer:
    """The answer to one POST; raises `AnchorUnavailable` when there is none, or none that ends in time.

    Redirects are not followed: what was configured is what is asked.
    """
    deadline = time.monotonic() + WHOLE_SECONDS
    host = urlsplit(url).hostname or "?"
    try:
        with httpx.stream(
            "POST",
            url,
            content=body,
            headers={"Content-Type": media_type, "Accept-Encoding": "identity"},
            timeout=_SILENT_SECONDS,
        ) as answer:
            received = b""
            for piece in answer.iter_raw():
                received += piece
                # Each read has a timeout; a server that sends a byte every few seconds would pass it for ever.
                if len(received) > _ANSWER_BYTES or time.monotonic() > deadline:
                    raise AnchorUnavailable(f"{host} sent more than {_ANSWER_BYTES} bytes, or took too long")
            return Answer(
                answer.status_code, answer.headers.get("content-type", "").partition(";")[0].strip(), received
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Only the kind of error: its text may repeat the address, which may hold a password.
        raise AnchorUnavailable(f"{host} did not answer: {type(error).__name__}") from None
