"""An HTTP request as handlers see it: strict about what it holds, cheap about what nobody asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from aiohttp import web

from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.edge.caller import Principal

INTEGER_DIGITS_MAX = 40
QUERY_PARAMETERS_MAX = 50


class Stop(Exception):  # noqa: N818  # not an error of kiki: an answer in a hurry
    """Ends a request with this status; for what HTTP itself forbids."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class Request:
    """One request. `parts` holds what the route's pattern captured, `principal` who asks when that is known."""

    __slots__ = ("body_bytes_max", "body_seconds_max", "parts", "path", "principal", "query_string", "raw")

    def __init__(self, raw: web.BaseRequest, path: str, query_string: str) -> None:
        self.raw = raw
        self.path = path
        self.query_string = query_string
        self.parts: Mapping[str, str] = {}
        self.principal: Principal | None = None
        self.body_bytes_max = 1 << 20
        self.body_seconds_max = 10.0

    @property
    def actor(self) -> str:
        """The name of the token that asks, empty when nobody had to say."""
        return self.principal.name if self.principal else ""

    def header(self, name: str) -> str | None:
        """A header's (first) value."""
        return self.raw.headers.get(name)

    def wants_json(self) -> bool:
        """Whether `Accept` prefers JSON to plain text."""
        accept = self.raw.headers.get("Accept")
        return accept is not None and accept != "*/*" and _prefers_json(accept)

    def pairs(self) -> list[tuple[str, str]]:
        """The decoded (name, value) pairs of the query, in order; raises `InvalidInput` when it cannot be decoded."""
        text = self.query_string
        if not text:
            return []
        pieces = text.split("&")
        if len(pieces) > QUERY_PARAMETERS_MAX:
            raise InvalidInput(f"the query has more than {QUERY_PARAMETERS_MAX} parameters")
        found = []
        for piece in pieces:
            if piece:
                name, _, value = piece.partition("=")
                found.append((_decoded(name), _decoded(value)))
        return found

    async def body(self) -> bytes:
        """The body, at most `body_bytes_max` long, within `body_seconds_max`."""
        try:
            async with asyncio.timeout(self.body_seconds_max):
                return await self.raw.read()
        except web.HTTPRequestEntityTooLarge:
            raise Stop(413, "body_too_large", f"the body is larger than {self.body_bytes_max} bytes") from None
        except TimeoutError:
            raise Stop(408, "body_too_slow", f"the body did not arrive within {self.body_seconds_max:g} s") from None
        except web.HTTPException as error:
            raise Stop(error.status, "bad_request", "the body cannot be read as HTTP") from None
        except (web.RequestPayloadError, ValueError):
            raise Stop(400, "bad_request", "the body cannot be read as HTTP") from None

    def has_body(self) -> bool:
        """Whether a body comes with the request."""
        return self.raw.can_read_body

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object: numbers with a fraction are `Decimal`, repeated members are refused."""
        content_type = self.raw.headers.get("Content-Type", "").lower().replace(" ", "")
        if content_type not in ("application/json", "application/json;charset=utf-8"):
            await self.body()
            raise Stop(415, "unsupported_media_type", "send the body as JSON with Content-Type: application/json")
        return parse_json(await self.body())


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object, strictly; raises `InvalidInput` with what is wrong."""
    try:
        value = _decoder.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidInput("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidInput("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"the body is not valid JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise InvalidInput('the body must be a JSON object, such as {"amount": "10.00"}')
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"the JSON member {twice[:40]!r} was given twice")
    return found


def _integer(text: str) -> int:
    if len(text) > INTEGER_DIGITS_MAX:
        raise InvalidInput(f"a number of {len(text)} digits is too large")
    return int(text)


def _fraction(text: str) -> Decimal:
    if len(text) > INTEGER_DIGITS_MAX:
        raise InvalidInput(f"a number of {len(text)} characters is too long")
    return Decimal(text)


def _constant(text: str) -> None:
    raise InvalidInput(f"{text} is not a JSON number")


_decoder = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_fraction, parse_int=_integer, parse_constant=_constant
)


def _decoded(text: str) -> str:
    if "%" not in text and "+" not in text and text.isascii():
        return text
    if any(len(part) < 2 or not _HEX.issuperset(part[:2]) for part in text.split("%")[1:]):
        raise InvalidInput("the query has a '%' that two hexadecimal digits do not follow")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("the query is not valid UTF-8") from None


_HEX = frozenset("0123456789abcdefABCDEF")


def _prefers_json(accept: str) -> bool:
    best = {"json": 0.0, "text": 0.0}
    for item in accept.split(","):
        kind, *parameters = item.lower().replace(" ", "").split(";")
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if kind in ("application/json", "application/problem+json"):
            best["json"] = max(best["json"], weight)
        elif kind in ("text/plain", "text/*", "*/*"):
            best["text"] = max(best["text"], weight)
    # Named as such, JSON wins a tie: a client that lists both and means text would not list JSON.
    return best["json"] > 0 and best["json"] >= best["text"]
