"""A request as kiki's services see it, and the strict readers of its query, body and Accept header.

Strict means: what two programs could read differently (a parameter given twice, a repeated JSON key, bytes that
are no UTF-8) is refused instead of guessed, and no number ever becomes a float.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, overload
from urllib.parse import unquote_to_bytes

from aiohttp import web

from kiki.errors import InvalidInput
from kiki.web.refusals import BodyLate, BodyTooLarge, ExpectationFailed, MediaTypeUnsupported
from kiki.web.tokens import Principal

INTEGER_DIGITS_MAX: Final = 40
NUMBER_LENGTH_MAX: Final = 64

_NO_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType({})


class Request(web.BaseRequest):
    """aiohttp's request and what the edge found out about it before the handler was called.

    `request_id` is echoed in the answer. `principal` is None for an anonymous caller inside. `params` holds the
    values of the route's `{names}`. `raw_query` is the text after the `?`, undecoded: read it with `pairs`.
    """

    request_id: str = "-"
    principal: Principal | None = None
    params: Mapping[str, str] = _NO_PARAMETERS
    raw_query: str = ""
    body_seconds_max: float = 10.0
    always_json: bool = False

    ATTRS = web.BaseRequest.ATTRS | frozenset(
        {"request_id", "principal", "params", "raw_query", "body_seconds_max", "always_json"}
    )

    def __repr__(self) -> str:
        # aiohttp's own shows the path, which may name a person; this may end up in a log.
        return f"<Request {self.method} {self.request_id}>"


# Query


_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def decode_component(text: str, what: str) -> str:
    """The percent-decoded text; raises `InvalidInput` for broken escapes and for bytes that are no UTF-8."""
    if _BAD_ESCAPE.search(text):
        raise InvalidInput(f"{what} holds a % that is not followed by two hex digits")
    try:
        # aiohttp hands over raw bytes that are no UTF-8 as lone surrogates: encoding refuses those.
        return unquote_to_bytes(text.encode("utf-8")).decode("utf-8")
    except UnicodeError:
        raise InvalidInput(f"{what} is not valid UTF-8") from None


def pairs(request: Request) -> list[tuple[str, str]]:
    """The query's (name, value) pairs in order; raises `InvalidInput` when they cannot be decoded."""
    found: list[tuple[str, str]] = []
    raw = request.raw_query
    if not raw:
        return found
    plain = raw.isascii() and "%" not in raw and "+" not in raw
    for pair in raw.split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if not plain:
            name = decode_component(name.replace("+", " "), "a parameter's name in the query")
            value = decode_component(value.replace("+", " "), f"the value of the query parameter {name[:40]!r}")
        found.append((name, value))
    return found


# Body


async def read_body(request: Request) -> bytes:
    """The whole body. Raises `BodyTooLarge` (413), `BodyLate` (408) or `InvalidInput` for broken framing.

    The time limit stands here and nowhere else: a handler is never cut off once it decides, because the answer
    to a decision that was made must not be lost.
    """
    content, limit, headers = request.content, request.client_max_size, request.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported("the body must not be compressed: send it without Content-Encoding")
    expect = headers.get("Expect")
    length = headers.get("Content-Length")
    if length is not None and int(length) > limit:  # aiohttp's parser let only digits through
        raise _too_large(limit)
    if content.is_eof() and expect is None:
        body = content.read_nowait(-1)
    else:
        if expect is not None:
            if expect.lower() != "100-continue":
                raise ExpectationFailed(f"Expect: {expect[:40]!r} is not supported; only 100-continue is")
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _arriving(request, limit)
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _arriving(request: Request, limit: int) -> bytes:
    content, body = request.content, bytearray()
    try:
        async with asyncio.timeout(request.body_seconds_max):
            while len(body) <= limit:
                chunk = await content.readany()
                if not chunk:
                    break
                body += chunk
    except TimeoutError:
        raise BodyLate(f"the body did not arrive within {request.body_seconds_max:g} seconds") from None
    except ConnectionError:
        raise  # nobody is left to answer
    except Exception as error:
        raise InvalidInput(f"the body's framing is broken: {type(error).__name__}") from error
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is too large: at most {limit} bytes are accepted")


_JSON_TYPE = re.compile(r"\s*application/json\s*(?:;\s*charset\s*=\s*(?:utf-8|\"utf-8\")\s*)?;?\s*", re.IGNORECASE)


@overload
async def read_json(request: Request) -> dict[str, Any]: ...
@overload
async def read_json(request: Request, *, lists: Literal[False]) -> dict[str, Any]: ...
@overload
async def read_json(request: Request, *, lists: Literal[True]) -> dict[str, Any] | list[Any]: ...
async def read_json(request: Request, *, lists: bool = False) -> dict[str, Any] | list[Any]:
    """The body as a JSON object, or also a list when `lists`; numbers with a fraction or exponent are `Decimal`.

    Raises `InvalidInput` for anything that is not strict JSON, `MediaTypeUnsupported` (415) for other types, and
    what `read_body` raises.
    """
    _require_json(request)
    return parse_json(await read_body(request), lists=lists)


async def read_json_text(request: Request) -> bytes:
    """A body that is declared as JSON, not looked into; raises `MediaTypeUnsupported` and what `read_body` raises."""
    _require_json(request)
    return await read_body(request)


def _require_json(request: Request) -> None:
    declared = request.headers.get("Content-Type")
    if declared != "application/json" and (declared is None or not _JSON_TYPE.fullmatch(declared)):
        raise MediaTypeUnsupported("the body must be JSON: send it with Content-Type: application/json")


@overload
def parse_json(body: bytes) -> dict[str, Any]: ...
@overload
def parse_json(body: bytes, *, lists: bool) -> dict[str, Any] | list[Any]: ...
def parse_json(body: bytes, *, lists: bool = False) -> dict[str, Any] | list[Any]:
    """The strictly read JSON of `read_json`, from bytes."""
    if not body:
        raise InvalidInput("the body is empty: a JSON object is expected")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the body is not valid UTF-8 (byte {error.start})") from None
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InvalidInput("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"the body is not valid JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        ) from None
    # "\ud800" is JSON and no text: it could be neither stored nor answered.
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
        except RecursionError:
            raise InvalidInput("the body is nested too deeply") from None
        except UnicodeEncodeError:
            raise InvalidInput("the body holds half of a surrogate pair, which is not text") from None
    if isinstance(value, dict) or (lists and isinstance(value, list)):
        return value
    wanted = "a JSON object or list" if lists else "a JSON object"
    raise InvalidInput(f'the body must be {wanted}, such as {{"amount": "12.34"}}')


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidInput(f"the key {name[:40]!r} is given twice in the same JSON object")
            seen.add(name)
    return found


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS_MAX + text.startswith("-"):
        raise InvalidInput(f"the body holds an integer of more than {INTEGER_DIGITS_MAX} digits")
    return int(text)


def _decimal(text: str) -> Decimal:
    try:
        if len(text) <= NUMBER_LENGTH_MAX:
            return Decimal(text)
    except InvalidOperation:
        pass
    raise InvalidInput("the body holds a number that is too long or too large")


def _constant(text: str) -> NoReturn:
    raise InvalidInput(f"the body holds {text}, which is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_decimal, parse_int=_integer, parse_constant=_constant, strict=True
)


# Accept

_CACHE_MAX: Final = 256
_accept_cache: dict[str, bool] = {}


def wants_json(request: Request) -> bool:
    """True when the Accept header prefers JSON to plain text; text is the default, and wins a draw of wildcards."""
    accept = request.headers.get("Accept")
    if accept is None or accept == "*/*":
        return False
    known = _accept_cache.get(accept)
    if known is None:
        known = prefers_json(accept)
        if len(accept) <= 256:  # a few clients send a few values; what does not fit is read again
            if len(_accept_cache) >= _CACHE_MAX:
                _accept_cache.clear()
            _accept_cache[accept] = known
    return known


_JSON_RANGES: Final = {"application/json": 2, "application/problem+json": 2, "application/*": 1, "*/*": 0}
_TEXT_RANGES: Final = {"text/plain": 2, "text/*": 1, "*/*": 0}


def prefers_json(accept: str) -> bool:
    """Whether this Accept header prefers application/json to text/plain (RFC 9110, 12.5.1).

    The most specific range decides each one's quality. At equal quality the more specifically named one wins,
    then the one that is named first, and text when neither is.
    """
    json_best, text_best = (-1, 0.0, 0), (-1, 0.0, 0)
    for place, part in enumerate(accept.lower().split(",")):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(1.0, max(0.0, float(parameter[2:])))
                except ValueError:
                    quality = 0.0
        rank = _JSON_RANGES.get(name)
        if rank is not None and (rank, quality) > json_best[:2]:
            json_best = (rank, quality, -place)
        rank = _TEXT_RANGES.get(name)
        if rank is not None and (rank, quality) > text_best[:2]:
            text_best = (rank, quality, -place)
    best = (json_best[1], json_best[0], json_best[2])
    return json_best[1] > 0 and best > (text_best[1], text_best[0], text_best[2])
