"""The sandbox: eight ad platforms over HTTP that spend no money, with books of their own and faults on request.

Under `/{platform}/v1/accounts/{account}` one plain interface, whichever platform is played: JSON, money in whole micros,
`Idempotency-Key` on writes, bearer tokens that `/oauth/token` renews. What differs is how the platforms behave, which is in
their profiles. Under `/sandbox` the hand of whoever tests: `clock`, `faults`, `accounts`, `books` (the truth).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from kiki.clock import SECOND
from kiki.errors import Conflict, InvalidInput, KikiError, NotFound, Unauthenticated
from kiki.flow.platform import Status, ValueUpload
from kiki.flow.sandbox.books import Books, Campaign
from kiki.flow.sandbox.faults import Faults
from kiki.flow.sandbox.faulty_answer import LATER, Effect, faulty_answer, forget_later
from kiki.flow.sandbox.profile import Profile, check_zone
from kiki.money import MICROS_MAX

HOST: Final = "127.0.0.1"
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
NAME_LENGTH_MAX: Final = 255
TOKEN_SECONDS: Final = 3600
SIMULATED_QUARTER: Final = 0.25
"""Hours of the sandbox after which a throttled caller may come again."""

_BOOKS: Final = web.AppKey("books", Books)
_FAULTS: Final = web.AppKey("faults", Faults)

Kind = TypeVar("Kind")


class NewCampaign(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A campaign to be made; always paused."""

    name: str
    daily_budget: int
    objective: str = ""
    bid: int | None = None
    starts: date | None = None
    ends: date | None = None
    countries: tuple[str, ...] = ()
    settings: dict[str, Any] = {}


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field to be set."""

    status: Status | None = None
    daily_budget: int | None = None
    bid: int | None = None


class Values(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What conversions were worth."""

    values: tuple[ValueUpload, ...]


class Clock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either time begins anew, or some of it is skipped."""

    first_day: date | None = None
    day_seconds: float | None = None
    skip_days: float = 0.0


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The access token in force becomes void, and perhaps the refresh token too."""

    refreshable: bool = True


class _Account(NamedTuple):
    platform: str
    account: str


def sandbox_app(books: Books) -> web.Application:
    """The whole server as an aiohttp application, on books that somebody else opens and closes."""
    app = web.Application(middlewares=[_speak_json], client_max_size=BODY_BYTES_MAX)
    app[_BOOKS], app[_FAULTS], app[LATER] = books, Faults(), set()
    account = "/{platform}/v1/accounts/{account}"
    app.router.add_get(account, _get_account)
    app.router.add_get(f"{account}/campaigns", _lookup)
    app.router.add_post(f"{account}/campaigns", _create)
    app.router.add_patch(f"{account}/campaigns/{{campaign}}", _change)
    app.router.add_get(f"{account}/campaigns/{{campaign}}/spend", _report)
    app.router.add_post(f"{account}/campaigns/{{campaign}}/values", _values)
    app.router.add_post("/oauth/token", _token)
    app.router.add_get("/sandbox/clock", _get_clock)
    app.router.add_post("/sandbox/clock", _set_clock)
    app.router.add_get("/sandbox/faults", _get_faults)
    app.router.add_put("/sandbox/faults", _set_faults)
    app.router.add_post("/sandbox/accounts/{platform}/{account}", _open_account)
    app.router.add_put("/sandbox/accounts/{platform}/{account}", _open_account)
    app.router.add_post("/sandbox/accounts/{platform}/{account}/revoke", _revoke)
    app.router.add_get("/sandbox/books", _get_books)
    app.on_shutdown.append(forget_later)
    return app


@contextlib.asynccontextmanager
async def sandbox_listening(books: Books, *, host: str = HOST, port: int = 0) -> AsyncIterator[str]:
    """The sandbox answers while the context is open, at the address that it gives."""
    runner = web.AppRunner(sandbox_app(books), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# -- the platforms ---------------------------------------------------------------------------------------


async def _get_account(request: web.Request) -> web.StreamResponse:
    whose = _account(request)
    books = request.app[_BOOKS]
    return await _answer(request, whose, "account", lambda: _about(whose, books.profile(*whose)))


def _about(whose: _Account, profile: Profile) -> dict[str, Any]:
    return {
        "account": whose.account,
        "currency": profile.currency,
        "time_zone": profile.time_zone,
        "overdelivery": profile.overdelivery,
        "unit": profile.unit,
        "report_hours": profile.report_hours,
    }


async def _lookup(request: web.Request) -> web.StreamResponse:
    whose, name = _account(request), request.query.get("name", "")
    books = request.app[_BOOKS]

    def effect() -> dict[str, Any]:
        return {"campaigns": [_shown(books, campaign) for campaign in books.named(*whose, name)]}

    return await _answer(request, whose, "lookup", effect)


async def _create(request: web.Request) -> web.StreamResponse:
    whose, wanted, key = _account(request), await _body(request, NewCampaign), _key(request)
    books = request.app[_BOOKS]

    def effect() -> dict[str, Any]:
        if not 0 < len(wanted.name) <= NAME_LENGTH_MAX:
            raise InvalidInput(f"a name has 1 to {NAME_LENGTH_MAX} letters")
        _check_money(books, whose, wanted.daily_budget, wanted.bid)
        return {"campaign": _shown(books, books.create(*whose, msgspec.to_builtins(wanted), key))}

    return await _answer(request, whose, "create", effect, status=201)


async def _change(request: web.Request) -> web.StreamResponse:
    whose, wanted, key = _account(request), await _body(request, Change), _key(request)
    books = request.app[_BOOKS]
    given = [
        (field, value)
        for field, value in (("status", wanted.status), ("budget", wanted.daily_budget), ("bid", wanted.bid))
        if value is not None
    ]
    if len(given) != 1:
        raise InvalidInput("set one of status, daily_budget and bid")
    field, value = given[0]

    def effect() -> dict[str, Any]:
        campaign = books.campaign(*whose, request.match_info["campaign"])
        _check_money(books, whose, wanted.daily_budget, wanted.bid)
        return {"campaign": _shown(books, books.change(campaign, field, value, key))}

    return await _answer(request, whose, f"set_{field}", effect)


async def _report(request: web.Request) -> web.StreamResponse:
    whose = _account(request)
    books = request.app[_BOOKS]
    try:
        day = date.fromisoformat(request.query.get("day", ""))
    except ValueError:
        raise InvalidInput("say which day: ?day=2026-12-01") from None

    def effect() -> dict[str, Any]:
        campaign = books.campaign(*whose, request.match_info["campaign"])
        return {"report": msgspec.to_builtins(books.report(campaign, day))}

    return await _answer(request, whose, "report", effect)


async def _values(request: web.Request) -> web.StreamResponse:
    whose, given, key = _account(request), await _body(request, Values), _key(request)
    books = request.app[_BOOKS]

    def effect() -> dict[str, Any]:
        campaign = books.campaign(*whose, request.match_info["campaign"])
        good = [
            (each.order, each.value)
            for each in given.values
            if each.consented and each.order and each.click and 0 <= each.value <= MICROS_MAX
        ]
        books.convert(campaign, good, key)
        taken = {order for order, _ in good}
        refused = [each.order for each in given.values if each.order not in taken]
        return {"accepted": len(good), "rejected": len(given.values) - len(good), "refused": refused}

    return await _answer(request, whose, "values", effect)


async def _token(request: web.Request) -> web.Response:
    """RFC 6749, 6: an access token for a refresh token, which is `refresh/{platform}/{account}`."""
    form = await request.post()
    parts = str(form.get("refresh_token", "")).split("/", 2)
    if form.get("grant_type") != "refresh_token" or len(parts) != 3 or parts[0] != "refresh":
        return web.json_response({"error": "invalid_request"}, status=400)
    _, platform, account = parts
    try:
        tokens, refreshable = request.app[_BOOKS].access(platform, account)
    except NotFound:
        refreshable, tokens = False, 0
    if not refreshable:
        return web.json_response({"error": "invalid_grant"}, status=400)
    return web.json_response(
        {"access_token": _access_token(platform, account, tokens), "expires_in": TOKEN_SECONDS, "token_type": "bearer"}
    )


# -- the hand of whoever tests ---------------------------------------------------------------------------


async def _get_clock(request: web.Request) -> web.Response:
    return web.json_response(_clock(request.app[_BOOKS], request.query.get("zone", "UTC")))


async def _set_clock(request: web.Request) -> web.Response:
    books, wanted = request.app[_BOOKS], await _body(request, Clock)
    if wanted.first_day is not None or wanted.day_seconds is not None:
        time = books.time
        books.begin_time(wanted.first_day or time.first_day, wanted.day_seconds or time.day_micros / SECOND)
    books.skip(books.time.span(24 * wanted.skip_days))
    return web.json_response(_clock(books, "UTC"))


def _clock(books: Books, zone: str) -> dict[str, Any]:
    check_zone(zone)
    calendar = books.time.wall_calendar(zone)
    return {
        "first_day": str(calendar.first),
        "began_at": calendar.began_at,
        "day_micros": calendar.day_micros,
        "today": str(books.time.day_at(zone, books.now())),
    }


async def _get_faults(request: web.Request) -> web.Response:
    return web.json_response({"met": request.app[_FAULTS].met})


async def _set_faults(request: web.Request) -> web.Response:
    request.app[_FAULTS].order(await _body(request, dict[str, Any]))
    return await _get_faults(request)


async def _open_account(request: web.Request) -> web.Response:
    """POST makes an account unless it is there; PUT makes it what is given."""
    changes = await _body(request, dict[str, Any])
    whose = _account(request)
    profile = request.app[_BOOKS].open_account(*whose, changes, replace=request.method == "PUT")
    return web.json_response(_about(whose, profile))


async def _revoke(request: web.Request) -> web.Response:
    wanted = await _body(request, Credentials)
    request.app[_BOOKS].revoke(*_account(request), refreshable=wanted.refreshable)
    return web.json_response({})


async def _get_books(request: web.Request) -> web.Response:
    return web.json_response(request.app[_BOOKS].truth())


# -- below -----------------------------------------------------------------------------------------------


@web.middleware
async def _speak_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response(status=400)  # whoever asked is gone, in the middle of asking
    except KikiError as error:
        return _refusal(error)


def _refusal(error: KikiError) -> web.Response:
    status = {Unauthenticated: 401, NotFound: 404, Conflict: 409}.get(type(error), 400)
    code = {401: "unauthorized", 404: "not_found", 409: "conflict"}.get(status, "invalid")
    return web.json_response({"error": {"code": code, "message": str(error)}}, status=status)


async def _answer(
    request: web.Request, whose: _Account, operation: str, effect: Effect, *, status: int = 200
) -> web.StreamResponse:
    """The answer to a platform's call, with whatever goes wrong with it."""
    _authenticate(request, whose)
    fault = request.app[_FAULTS].meet(*whose, operation)
    if fault is None:
        return web.json_response(effect(), status=status)
    throttled = request.app[_BOOKS].time.span(SIMULATED_QUARTER) / SECOND
    return await faulty_answer(request, fault, effect, status=status, throttled_seconds=throttled)


def _account(request: web.Request) -> _Account:
    return _Account(request.match_info["platform"], request.match_info["account"])


def _authenticate(request: web.Request, whose: _Account) -> None:
    tokens, _ = request.app[_BOOKS].access(*whose)
    if request.headers.get("Authorization") != f"Bearer {_access_token(*whose, tokens)}":
        raise Unauthenticated("the access token is missing, void or another account's")


def _access_token(platform: str, account: str, tokens: int) -> str:
    return f"access/{platform}/{account}/{tokens}"


def _key(request: web.Request) -> str:
    return request.headers.get("Idempotency-Key", "")


async def _body(request: web.Request, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body cannot be read: {error}") from None


def _shown(books: Books, campaign: Campaign) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(books.state(campaign))
    return plain


def _check_money(books: Books, whose: _Account, budget: int | None, bid: int | None) -> None:
    unit = books.profile(*whose).unit
    for what, micros in (("daily_budget", budget), ("bid", bid)):
        if micros is not None and (not 0 < micros <= MICROS_MAX or micros % unit):
            raise InvalidInput(f"{what} is {micros}; write a positive multiple of {unit} micros")
