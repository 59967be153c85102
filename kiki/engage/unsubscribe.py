"""The way out of a mailing list: links that nobody can guess or forge, and that name nobody. Pure.

A token is the action's id and a MAC over it, in the alphabet of URLs; who got that message only the store knows. RFC
8058 has the mail program POST to the link without cookies: the token is all the proof there is, so it has to be as good
as a password. GET must change nothing, because link scanners fetch every link of a mail.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from typing import Final

import msgspec

from kiki.engage.channel import Content
from kiki.engage.event import OptOut, OptOutReason
from kiki.errors import ConfigurationError, InvalidInput, NotFound
from kiki.settings import Secret

PATH: Final = "/v1/unsubscribe/"
"""The links' path below the public URL."""
ONE_CLICK: Final = "List-Unsubscribe=One-Click"
"""The header's value, and what a mail program posts (RFC 8058)."""
SECRET_BYTES_MIN: Final = 16
ACTION_BYTES_MAX: Final = 200

_PURPOSE: Final = b"kiki unsubscribe v1\0"
_TAG_BYTES: Final = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{23,320}", re.ASCII)


class UnsubscribeLinks:
    """Makes the links of a service and knows its own again."""

    def __init__(self, public_url: str, secrets: Sequence[Secret]) -> None:
        """`secrets`: the first one signs, the others are older ones that still hold. Links in old mail must work for years."""
        problems = []
        if not public_url.startswith("https://") and not public_url.startswith(
            ("http://127.0.0.1", "http://localhost")
        ):
            problems.append("the public URL is where mail programs post to: it begins with https://")
        if not secrets:
            problems.append("no secret to sign unsubscribe links with")
        if any(len(secret.reveal().encode()) < SECRET_BYTES_MIN for secret in secrets):
            problems.append(f"a secret for unsubscribe links has at least {SECRET_BYTES_MIN} bytes")
        if problems:
            raise ConfigurationError(problems)
        self._base = public_url.rstrip("/") + PATH
        self._keys = tuple(secret.reveal().encode() for secret in secrets)

    def url(self, action: str) -> str:
        """The link of that message."""
        return self._base + self.token(action)

    def token(self, action: str) -> str:
        """The last part of the link."""
        name = action.encode()
        if not 0 < len(name) <= ACTION_BYTES_MAX:
            raise InvalidInput(f"an action's id has 1 to {ACTION_BYTES_MAX} bytes")
        return base64.urlsafe_b64encode(_tag(self._keys[0], name) + name).rstrip(b"=").decode()

    def action(self, token: str) -> str:
        """The action whose link it is; raises `NotFound` for anything that was not made here."""
        raw = _decoded(token)
        tag, name = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        # Every key is tried, whichever fits: how long it takes tells nothing.
        fits = [hmac.compare_digest(_tag(key, name), tag) for key in self._keys]
        if not any(fits):
            raise NotFound("this link is not one of ours, or was cut off")
        return name.decode()


def opt_out(action: str, now: int, *, channel: str = "email") -> OptOut:
    """What a POST to the link of that action means; told twice it is the same."""
    return OptOut(id=f"unsubscribe:{action}", at=now, reason=OptOutReason.UNSUBSCRIBED, channel=channel, action=action)


def list_headers(url: str) -> dict[str, str]:
    """The two headers by which a mail program shows its own button (RFC 8058)."""
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": ONE_CLICK}


def with_way_out(content: Content, url: str) -> Content:
    """The content with a visible link, where its writer has left it out: a header alone is no way out for everybody."""
    text, html = content.text, content.html
    if url not in text:
        text = f"{text.rstrip()}\n\nUnsubscribe: {url}\n"
    if html and url not in html and escape(url) not in html:
        link = f'<p><a href="{escape(url)}" clicktracking="off">Unsubscribe</a></p>'
        before, end, after = html.rpartition("</body>")
        html = before + link + end + after if end else html + link
    return msgspec.structs.replace(content, text=text, html=html)


def question_page() -> str:
    """What a person who follows the link sees: one button. Nothing has changed yet."""
    return _page(
        "Unsubscribe",
        '<p>Do you want to get no more messages of this kind?</p><form method="post">'
        '<input type="hidden" name="List-Unsubscribe" value="One-Click">'
        '<button type="submit">Unsubscribe</button></form>',
    )


def done_page() -> str:
    """What that person sees afterwards."""
    return _page(
        "Done", "<p>You are unsubscribed. It may take a moment until messages that are on their way have arrived.</p>"
    )


def broken_page() -> str:
    """What is seen where a link is not one of ours: a person is told what else to do."""
    return _page(
        "This link does not work",
        "<p>Nothing was changed: the link was cut off or is not one of ours. Open it from the message itself, or answer "
        "the message and ask to be taken off.</p>",
    )


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>body{{font:18px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;"
        "padding:0 1.5rem;color-scheme:light dark}button{font:inherit;padding:.6rem 1.4rem;cursor:pointer}</style></head>"
        f"<body><h1>{title}</h1>{body}</body></html>\n"
    )


def _tag(key: bytes, name: bytes) -> bytes:
    return hmac.new(key, _PURPOSE + name, sha256).digest()[:_TAG_BYTES]


def _decoded(token: str) -> bytes:
    unknown = NotFound("this link is not one of ours, or was cut off")
    if not _TOKEN.fullmatch(token):
        raise unknown
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        raw[_TAG_BYTES:].decode()
    except (binascii.Error, UnicodeDecodeError):
        raise unknown from None
    # A token has one spelling: base64 would ignore stray bits of the last letter.
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
        raise unknown
    return raw
