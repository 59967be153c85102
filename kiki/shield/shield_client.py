"""`ShieldClient` and `AsyncShieldClient`: a `BudgetGuard` that lives behind HTTP, with the same names and errors.

Each conversation is written once, as a generator that yields what to send and receives what came back; the two
clients only drive it. A call that changes something always carries an idempotency key, made here when the caller
gives none, so that trying again is the same spend and never a second one.

What is tried again, with growing and jittered waits: connections that fail, timeouts, and 502, 503, 504.
`Retry-After` is honoured up to `RETRY_AFTER_MAX`; a service that asks for longer is not kept waiting for, its error is
raised. Every other status is an answer. All tries and waits together end at `deadline`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, TypeVar
from uuid import uuid4

import httpx
import msgspec

from kiki import __version__
from kiki.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KikiError,
    SettingsError,
    ShieldUnreachable,
    SpendDenied,
    Unauthenticated,
    Unavailable,
)
from kiki.settings import is_loopback, parse_url, shield_url
from kiki.shield import wire, wire_call
from kiki.shield.call import (
    Amount,
    Call,
    ScopesGiven,
    Switch,
    check_call,
    commit_call,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
    switch,
)
from kiki.shield.simulation import Simulation
from kiki.shield.window import OpenHold
from kiki.shield.wire import (
    BatchReply,
    BudgetsReply,
    DecisionsReply,
    HaltReply,
    OutcomeReply,
    ReservationReply,
    SettlementReply,
)

TIMEOUT = 5.0
"""Seconds for one try."""
RETRIES = 3
"""Further tries after the first."""
DEADLINE = 20.0
"""Seconds for a call with all its tries and waits."""
RETRY_AFTER_MAX = 5.0
"""Seconds that a service may ask to be left alone for before its refusal is raised instead."""
WAIT_FIRST = 0.1
WAIT_MAX = 2.0
REPLY_BYTES_MAX = 64 * 1024 * 1024
"""A reply that is longer is no reply of SyncShield's."""

_PASSING = frozenset({502, 503, 504})
_DETAIL_LENGTH = 200

Value = TypeVar("Value")


class Send(NamedTuple):
    """What a flow wants sent."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...]
    content: bytes | None
    headers: dict[str, str]
    timeout: float


class Wait(NamedTuple):
    """How long a flow wants to pause."""

    seconds: float


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Failure(NamedTuple):
    """That nothing came back, and why."""

    why: str


Heard = Reply | Failure | None
Flow = Generator[Send | Wait, Heard, Value]


# -- where, and as whom ------------------------------------------------------------------------------


def default_url(environ: Mapping[str, str] | None = None) -> str:
    """Where SyncShield is: `KIKI_SHIELD_URL`, else `SHIELD_URL`, else this machine."""
    return shield_url(os.environ if environ is None else environ)


def read_token(path: str | Path) -> str:
    """The bearer token in a file; raises `SettingsError`, which never shows what the file holds."""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError([f"the token file {path} cannot be read: {why}"]) from None
    return _checked_token(token, f"the token file {path}")


def default_token(environ: Mapping[str, str] | None = None) -> str | None:
    """The bearer token of `KIKI_SHIELD_TOKEN`, else of the file `KIKI_SHIELD_TOKEN_FILE`, else None."""
    environ = os.environ if environ is None else environ
    if environ.get("KIKI_SHIELD_TOKEN"):
        return _checked_token(environ["KIKI_SHIELD_TOKEN"].strip(), "KIKI_SHIELD_TOKEN")
    path = environ.get("KIKI_SHIELD_TOKEN_FILE")
    return read_token(path) if path else None


def _checked_token(token: str, where: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError([f"{where} holds no bearer token: it must be one word of printable ASCII"])
    return token


# -- the conversations -------------------------------------------------------------------------------


class _Flows:
    """Every call as a generator, and what both clients know: where to, as whom, and how patiently."""

    def __init__(
        self,
        url: str | None,
        token: str | None,
        timeout: float,
        retries: int,
        deadline: float,
    ) -> None:
        self.url = default_url() if url is None else parse_url(url.strip())
        found = _checked_token(token.strip(), "the token") if token is not None else default_token()
        if not (timeout > 0 and deadline > 0 and retries >= 0):
            raise InvalidInput("timeout and deadline are positive seconds, retries is a whole number from 0")
        self.timeout = timeout
        self.retries = retries
        self.deadline = deadline
        self._headers = {"Accept": wire.JSON_TYPE, "User-Agent": f"kiki/{__version__}"}
        if found is not None:
            self._headers["Authorization"] = f"Bearer {found}"
        self._clock = time.monotonic
        self._random = random.random

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _options(self) -> dict[str, Any]:
        """How httpx is set up for this address."""
        import ssl

        url = httpx.URL(self.url)
        options: dict[str, Any] = {
            "base_url": self.url,
            "follow_redirects": False,
            # A proxy from the environment is for the world outside; what goes to this machine stays on it.
            "trust_env": not is_loopback(url.host),
        }
        if url.scheme == "http":
            # Loading all certificates takes longer than everything else here; this context trusts nobody.
            options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return options

    # -- one request, patiently

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        params: Iterable[tuple[str, str | None]] = (),
    ) -> Flow[Reply]:
        """The reply to one request that may be sent again; raises for what is no 2xx."""
        content = None if body is None else json.dumps(body).encode()
        headers = self._headers if content is None else {**self._headers, "Content-Type": wire.JSON_TYPE}
        given = tuple((name, value) for name, value in params if value is not None)
        end = self._clock() + self.deadline
        tried = 0
        while True:
            left = max(0.001, end - self._clock())
            heard = yield Send(method, path, given, content, headers, min(self.timeout, left))
            if isinstance(heard, Reply) and heard.status not in _PASSING:
                break
            asked = _retry_after(heard) if isinstance(heard, Reply) else None
            pause = min(WAIT_MAX, WAIT_FIRST * 2**tried) * (0.5 + self._random() / 2)
            if asked is not None:
                pause = max(pause, asked)
            tried += 1
            if tried > self.retries or (asked or 0) > RETRY_AFTER_MAX or self._clock() + pause >= end:
                if isinstance(heard, Reply):
                    break
                why = heard.why if heard else "nothing was heard"
                times = f" ({tried} tries)" if tried > 1 else ""
                raise ShieldUnreachable(
                    f"SyncShield at {self.url} cannot be reached: {why}{times}",
                    hint="is it running? start it with: kiki serve shield",
                )
            yield Wait(pause)
        if not 200 <= heard.status < 300:
            self._raise(heard)
        return heard

    def _raise(self, reply: Reply) -> NoReturn:
        """The error that a reply stands for."""
        found = wire.parse_problem(reply.content)
        if found is not None and found["code"] == SpendDenied.code:
            try:
                outcome = wire.parse(reply.content, wire.RefusalProblem).outcome()
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
            else:
                raise _denied(outcome)
        error = None if found is None else wire.error_of(found)
        if error is not None:
            if isinstance(error, Unavailable) and error.retry_after is None:
                error.retry_after = _retry_after(reply)
            raise error
        text = "" if found is None else str(found.get("detail", ""))
        raise _by_status(reply, text, self.url)

    def _read(self, reply: Reply, kind: type[Value]) -> Value:
        try:
            return wire.parse(reply.content, kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._nonsense(reply, str(error)) from None

    def _nonsense(self, reply: Reply, why: str) -> ShieldUnreachable:
        return ShieldUnreachable(
            f"{self.url} answered {reply.status} with something that SyncShield does not say: {why[:_DETAIL_LENGTH]}",
            hint="is this really SyncShield's address?",
        )

    def _get(self, path: str, kind: type[Value], params: Iterable[tuple[str, str | None]] = ()) -> Flow[Value]:
        return self._read((yield from self._ask("GET", path, params=params)), kind)

    def _post(self, path: str, body: dict[str, Any], kind: type[Value]) -> Flow[Value]:
        return self._read((yield from self._ask("POST", path, body)), kind)

    # -- the verbs

    def _spend(self, call: Call) -> Flow[OutcomeReply]:
        outcome = yield from self._post("/v1/spends", wire_call.call_json(_keyed(call)), OutcomeReply)
        # A service that said 200 to a refusal would be mistaken for one that took the money.
        if not outcome.allowed:
            raise _denied(outcome)
        return outcome

    def _spend_many(self, call: Call) -> Flow[BatchReply]:
        reply = yield from self._ask("POST", "/v1/spends:batch", wire_call.batch_json(_keyed(call)))
        batch = self._read(reply, BatchReply)
        if len(batch.outcomes) != len(call.amounts):
            raise self._nonsense(reply, f"{len(batch.outcomes)} outcomes for {len(call.amounts)} amounts")
        return batch

    def _check(self, call: Call, *, any_amount: bool) -> Flow[OutcomeReply]:
        body = wire_call.call_json(call)
        if any_amount:
            del body["amount"]
        return self._post("/v1/checks", body, OutcomeReply)

    def _reserve(self, call: Call) -> Flow[ReservationReply]:
        return self._post("/v1/reservations", wire_call.call_json(_keyed(call)), ReservationReply)

    def _settle(self, call: Call) -> Flow[SettlementReply]:
        path = f"/v1/reservations/{call.hold}/{call.verb.value}"
        return self._post(path, wire_call.call_json(call), SettlementReply)

    def _record(self, call: Call) -> Flow[OutcomeReply]:
        return self._post("/v1/records", wire_call.call_json(_keyed(call)), OutcomeReply)

    def _switch(self, turn: Switch) -> Flow[HaltReply]:
        if turn.on:
            body = {"pattern": turn.pattern} | ({"note": turn.note} if turn.note else {})
            return self._post("/v1/halts", body, HaltReply)
        return self._resume(turn.pattern)

    def _resume(self, pattern: str) -> Flow[HaltReply]:
        return self._read((yield from self._ask("DELETE", "/v1/halts", params=[("pattern", pattern)])), HaltReply)

    def _budgets(self, budget: str | None, scope: str | None, limit: int | None) -> Flow[BudgetsReply]:
        params = [("budget", budget), ("scope", scope), ("limit", None if limit is None else str(limit))]
        reply = yield from self._ask("GET", "/v1/budgets", params=params)
        found = self._read(reply, BudgetsReply)
        self._understood(reply, found.meters)
        return found

    def _halts(self) -> Flow[list[str]]:
        return (yield from self._get("/v1/halts", wire.HaltsReply)).halts

    def _reservations(self) -> Flow[list[OpenHold]]:
        reply = yield from self._ask("GET", "/v1/reservations")
        found = self._read(reply, wire.ReservationsReply)
        return self._understood(reply, lambda: [each.hold() for each in found.reservations])

    def _decisions(self, params: list[tuple[str, str | None]]) -> Flow[DecisionsReply]:
        return self._get("/v1/decisions", DecisionsReply, params)

    def _decision(self, event_id: str) -> Flow[dict[str, Any]]:
        return self._get(f"/v1/decisions/{wire_call.parse_event_id(event_id)}", dict[str, Any])

    def _simulate(self, policy: str | Path, since: datetime | None) -> Flow[Simulation]:
        body = {"policy": _policy_text(policy)} | ({} if since is None else {"since": _moment(since)})
        reply = yield from self._ask("POST", "/v1/policies:simulate", body)
        figures = self._read(reply, dict[str, Any])
        return self._understood(reply, lambda: wire.parse_simulation(figures))

    def _health(self) -> Flow[dict[str, Any]]:
        return self._get("/health", dict[str, Any])

    def _understood(self, reply: Reply, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except (InvalidInput, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise self._nonsense(reply, str(error)) from None


def _keyed(call: Call) -> Call:
    """The call with a key, so that sending it again is the same call."""
    if not call.key:
        call.key = uuid4().hex
    return call


def _denied(outcome: OutcomeReply) -> SpendDenied:
    error = outcome.denied()
    vars(error)["outcome"] = outcome
    return error


def outcome_of(error: SpendDenied) -> OutcomeReply | None:
    """The whole outcome behind a refusal that a client raised, None when the refusal came from elsewhere."""
    found = vars(error).get("outcome")
    return found if isinstance(found, OutcomeReply) else None


def _by_status(reply: Reply, text: str, url: str) -> KikiError:
    """The error for a reply without a code that we know, from something in between or a newer service."""
    said = text or " ".join(reply.content[: 4 * _DETAIL_LENGTH].decode("utf-8", "replace").split())
    said = "".join(letter for letter in said if letter.isprintable())[:_DETAIL_LENGTH]
    message = f"{url} answered {reply.status}" + (f": {said}" if said else "")
    match reply.status:
        case 401:
            return Unauthenticated(
                message, hint="give a token: KIKI_SHIELD_TOKEN, KIKI_SHIELD_TOKEN_FILE or --token-file"
            )
        case 403:
            return Forbidden(message)
        case 409:
            return Conflict(message)
        case 400 | 413 | 414 | 415 | 422 | 431:
            return InvalidInput(message)
        case 429:
            return Unavailable(message, retry_after=_retry_after(reply))
    hint = "is this really SyncShield's address?" if reply.status < 500 else None
    return ShieldUnreachable(message, retry_after=_retry_after(reply), hint=hint)


def _retry_after(reply: Reply) -> float | None:
    """Seconds that a reply asks to be left alone for, written as a number or as a date."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _policy_text(policy: str | Path) -> str:
    from kiki.errors import PolicyError

    try:
        return Path(policy).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError([f"{policy}: cannot be read: {error}"]) from None


def _moment(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise InvalidInput("a moment needs a time zone: datetime.now(UTC), not datetime.now()")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _span(seconds: float | None) -> int | None:
    return None if seconds is None else wire_call.parse_seconds(seconds)


_NO_HOLD = "0" * 32
"""Where the service will put an id of its own."""


def _page(
    after: str | None,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    outcome: str | None,
    scope: str | None,
) -> list[tuple[str, str | None]]:
    return [
        ("after", after),
        ("limit", None if limit is None else str(limit)),
        ("since", None if since is None else _moment(since)),
        ("until", None if until is None else _moment(until)),
        ("outcome", outcome),
        ("scope", scope),
    ]


class _RemoteHold:
    """What both colours of a hold know."""

    def __init__(self, reply: ReservationReply) -> None:
        self.reply = reply
        self.id = reply.id
        self.amount = reply.amount
        self.event_id = reply.event_id
        self.deadline = None if reply.deadline is None else wire.moment_micros(reply.deadline)
        """Microseconds since the epoch, None without one; then it turns into a spend."""
        self.is_open = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.amount}, {'open' if self.is_open else 'closed'})"


# -- in two colours ----------------------------------------------------------------------------------


class ClientHold(_RemoteHold):
    """Money set aside. Leaving a `with` block without a commit releases it."""

    def __init__(self, client: ShieldClient, reply: ReservationReply) -> None:
        super().__init__(reply)
        self._client = client

    def commit(self, amount: Amount) -> SettlementReply:
        """Say what was really spent, at most what was reserved; the rest is free at once."""
        reply = self._client.commit(self.id, amount)
        self.is_open = False
        return reply

    def release(self) -> SettlementReply:
        """Say that nothing was spent; all of it is free at once."""
        reply = self._client.release(self.id)
        self.is_open = False
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            self.release()


class AsyncClientHold(_RemoteHold):
    """Money set aside. Leaving an `async with` block without a commit releases it."""

    def __init__(self, client: AsyncShieldClient, reply: ReservationReply) -> None:
        super().__init__(reply)
        self._client = client

    async def commit(self, amount: Amount) -> SettlementReply:
        """Say what was really spent, at most what was reserved; the rest is free at once."""
        reply = await self._client.commit(self.id, amount)
        self.is_open = False
        return reply

    async def release(self) -> SettlementReply:
        """Say that nothing was spent; all of it is free at once."""
        reply = await self._client.release(self.id)
        self.is_open = False
        return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            await self.release()


class ShieldClient(_Flows):
    """A guard behind HTTP. Thread-safe; keeps its connections until it is closed.

    `url` is by default `KIKI_SHIELD_URL`, then `SHIELD_URL`, then http://localhost:8081; `token` is by default
    `KIKI_SHIELD_TOKEN`, then the content of `KIKI_SHIELD_TOKEN_FILE`. `timeout` is for one try, `deadline` for a
    call with all its `retries`. Raises what `BudgetGuard` raises, `ShieldUnreachable` when there is no
    sensible answer, `Unauthenticated` and `Forbidden` when the token does not do.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        deadline: float = DEADLINE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, deadline)
        self._http = httpx.Client(**self._options(), transport=transport)
        self._sleep = time.sleep

    def _drive(self, flow: Flow[Value]) -> Value:
        heard: Heard = None
        while True:
            try:
                step = flow.send(heard)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # the flow's own return type
            if isinstance(step, Wait):
                self._sleep(step.seconds)
                heard = None
            else:
                heard = self._send(step)

    def _send(self, step: Send) -> Reply | Failure:
        end = self._clock() + step.timeout
        try:
            with self._http.stream(
                step.method,
                step.path,
                params=list(step.params) or None,
                content=step.content,
                headers=step.headers,
                timeout=step.timeout,
            ) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > REPLY_BYTES_MAX:
                        return Failure("its reply is too long")
                    if self._clock() > end:
                        return Failure(f"its reply took longer than {step.timeout:g} s")
                return Reply(response.status_code, response.headers, bytes(content))
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            return Failure(_why(error, step))

    def spend(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> OutcomeReply:
        """Take `amount` from every budget that concerns it, all or nothing; raises `SpendDenied`."""
        return self._drive(self._spend(spend_call(amount, scopes, key)))

    def spend_many(
        self,
        amounts: Iterable[Amount | tuple[Amount, ScopesGiven]],
        scopes: ScopesGiven = None,
        key: str | None = None,
    ) -> list[OutcomeReply]:
        """Take many amounts in one durable commit: one outcome each, in order, none raised."""
        return self._drive(self._spend_many(spend_many_call(amounts, scopes, key))).outcomes

    def check(
        self, amount: Amount | None = None, scopes: ScopesGiven = None, *, ltv: Amount | None = None
    ) -> OutcomeReply:
        """Whether `amount` (or anything at all) would fit now; takes nothing, and the service writes it down."""
        return self._drive(self._check(check_call(amount, scopes, ltv), any_amount=amount is None))

    def reserve(
        self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None, *, seconds: float | None = None
    ) -> ClientHold:
        """Set `amount` aside until it is committed or released; raises `SpendDenied`."""
        call = reserve_call(amount, _NO_HOLD, _span(seconds), scopes, key)
        return ClientHold(self, self._drive(self._reserve(call)))

    def commit(self, hold: str, amount: Amount) -> SettlementReply:
        """Turn a hold into a spend of `amount`, at most what was reserved; the rest is free at once."""
        return self._drive(self._settle(commit_call(hold, amount)))

    def release(self, hold: str) -> SettlementReply:
        """End a hold of which nothing was spent."""
        return self._drive(self._settle(release_call(hold)))

    def record(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> OutcomeReply:
        """Count money that was spent elsewhere, even when it goes over a limit."""
        return self._drive(self._record(record_call(amount, scopes, key)))

    def halt(self, pattern: str = "*", *, note: str = "") -> HaltReply:
        """Refuse every new spend and reservation that the pattern concerns, until `resume`."""
        return self._drive(self._switch(switch(pattern, on=True, note=note)))

    def resume(self, pattern: str = "*") -> HaltReply:
        """Take a halt back."""
        return self._drive(self._switch(switch(pattern, on=False)))

    def halts(self) -> list[str]:
        """The scope patterns that are halted."""
        return self._drive(self._halts())

    def budgets(self, budget: str | None = None, scope: str | None = None, limit: int | None = None) -> BudgetsReply:
        """What is spent, held and left in each window; `.meters()` gives the guard's own values."""
        return self._drive(self._budgets(budget, scope, limit))

    def reservations(self) -> list[OpenHold]:
        """Every open hold."""
        return self._drive(self._reservations())

    def decisions(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        outcome: str | None = None,
        scope: str | None = None,
    ) -> DecisionsReply:
        """A page of the audit, oldest first; give its `next` as `after` for the one behind it."""
        return self._drive(self._decisions(_page(after, limit, since, until, outcome, scope)))

    def decision(self, event_id: str) -> dict[str, Any]:
        """One row of the audit; raises `NotFound`."""
        return self._drive(self._decision(event_id))

    def simulate(self, policy: str | Path, since: datetime | None = None) -> Simulation:
        """What the policy in the file `policy` would have decided about everything asked since then."""
        return self._drive(self._simulate(policy, since))

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self._drive(self._health())

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncShieldClient(_Flows):
    """`ShieldClient` for an event loop: the same calls, awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        deadline: float = DEADLINE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, deadline)
        self._http = httpx.AsyncClient(**self._options(), transport=transport)
        self._sleep = asyncio.sleep

    async def _drive(self, flow: Flow[Value]) -> Value:
        heard: Heard = None
        while True:
            try:
                step = flow.send(heard)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # the flow's own return type
            if isinstance(step, Wait):
                await self._sleep(step.seconds)
                heard = None
            else:
                heard = await self._send(step)

    async def _send(self, step: Send) -> Reply | Failure:
        try:
            async with (
                asyncio.timeout(step.timeout),
                self._http.stream(
                    step.method,
                    step.path,
                    params=list(step.params) or None,
                    content=step.content,
                    headers=step.headers,
                    timeout=step.timeout,
                ) as response,
            ):
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > REPLY_BYTES_MAX:
                        return Failure("its reply is too long")
                return Reply(response.status_code, response.headers, bytes(content))
        except TimeoutError:
            return Failure(f"it did not answer within {step.timeout:g} s")
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            return Failure(_why(error, step))

    async def spend(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> OutcomeReply:
        """Take `amount` from every budget that concerns it, all or nothing; raises `SpendDenied`."""
        return await self._drive(self._spend(spend_call(amount, scopes, key)))

    async def spend_many(
        self,
        amounts: Iterable[Amount | tuple[Amount, ScopesGiven]],
        scopes: ScopesGiven = None,
        key: str | None = None,
    ) -> list[OutcomeReply]:
        """Take many amounts in one durable commit: one outcome each, in order, none raised."""
        return (await self._drive(self._spend_many(spend_many_call(amounts, scopes, key)))).outcomes

    async def check(
        self, amount: Amount | None = None, scopes: ScopesGiven = None, *, ltv: Amount | None = None
    ) -> OutcomeReply:
        """Whether `amount` (or anything at all) would fit now; takes nothing, and the service writes it down."""
        return await self._drive(self._check(check_call(amount, scopes, ltv), any_amount=amount is None))

    async def reserve(
        self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None, *, seconds: float | None = None
    ) -> AsyncClientHold:
        """Set `amount` aside until it is committed or released; raises `SpendDenied`."""
        call = reserve_call(amount, _NO_HOLD, _span(seconds), scopes, key)
        return AsyncClientHold(self, await self._drive(self._reserve(call)))

    async def commit(self, hold: str, amount: Amount) -> SettlementReply:
        """Turn a hold into a spend of `amount`, at most what was reserved; the rest is free at once."""
        return await self._drive(self._settle(commit_call(hold, amount)))

    async def release(self, hold: str) -> SettlementReply:
        """End a hold of which nothing was spent."""
        return await self._drive(self._settle(release_call(hold)))

    async def record(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> OutcomeReply:
        """Count money that was spent elsewhere, even when it goes over a limit."""
        return await self._drive(self._record(record_call(amount, scopes, key)))

    async def halt(self, pattern: str = "*", *, note: str = "") -> HaltReply:
        """Refuse every new spend and reservation that the pattern concerns, until `resume`."""
        return await self._drive(self._switch(switch(pattern, on=True, note=note)))

    async def resume(self, pattern: str = "*") -> HaltReply:
        """Take a halt back."""
        return await self._drive(self._switch(switch(pattern, on=False)))

    async def halts(self) -> list[str]:
        """The scope patterns that are halted."""
        return await self._drive(self._halts())

    async def budgets(
        self, budget: str | None = None, scope: str | None = None, limit: int | None = None
    ) -> BudgetsReply:
        """What is spent, held and left in each window; `.meters()` gives the guard's own values."""
        return await self._drive(self._budgets(budget, scope, limit))

    async def reservations(self) -> list[OpenHold]:
        """Every open hold."""
        return await self._drive(self._reservations())

    async def decisions(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        outcome: str | None = None,
        scope: str | None = None,
    ) -> DecisionsReply:
        """A page of the audit, oldest first; give its `next` as `after` for the one behind it."""
        return await self._drive(self._decisions(_page(after, limit, since, until, outcome, scope)))

    async def decision(self, event_id: str) -> dict[str, Any]:
        """One row of the audit; raises `NotFound`."""
        return await self._drive(self._decision(event_id))

    async def simulate(self, policy: str | Path, since: datetime | None = None) -> Simulation:
        """What the policy in the file `policy` would have decided about everything asked since then."""
        return await self._drive(self._simulate(policy, since))

    async def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return await self._drive(self._health())

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _why(error: Exception, step: Send) -> str:
    """Why nothing came back; no URL in it, since a query may name a person."""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return f"no connection within {step.timeout:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"it did not answer within {step.timeout:g} s"
    if isinstance(error, httpx.ConnectError):
        return str(error)[:_DETAIL_LENGTH] or "no connection"
    return f"{type(error).__name__}: {error}"[:_DETAIL_LENGTH]
