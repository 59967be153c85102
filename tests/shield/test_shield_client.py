"""The clients: the guard's names and errors over HTTP, patient where it is safe, and the same spend on every try."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from kiki import errors
from kiki.errors import (
    Conflict,
    Forbidden,
    HoldUnknown,
    InvalidInput,
    InvalidMoney,
    KeyReused,
    KikiError,
    LedgerUnavailable,
    PolicyError,
    SettingsError,
    ShieldUnreachable,
    SpendDenied,
    Unauthenticated,
    Unavailable,
)
from kiki.shield import http_line, shield_client, wire_answer, wire_call
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.shield_client import AsyncShieldClient, ShieldClient, outcome_of
from kiki.web.reply import describe_error
from tests.cli.fake_shield import CHAIN, Guarded, Real

URL = "http://shield.test:8081"


class InStep:
    """An `AsyncShieldClient` driven call by call, so that one test does for both colours."""

    def __init__(self, client: AsyncShieldClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str):
        value = getattr(self._client, name)
        if not inspect.iscoroutinefunction(value):
            return value

        def call(*args, **options):
            found = self._loop.run_until_complete(value(*args, **options))
            return InStepHold(found, self._loop) if isinstance(found, shield_client.AsyncClientHold) else found

        return call

    def __repr__(self) -> str:
        return repr(self._client)

    def finish(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


class InStepHold:
    def __init__(self, hold, loop) -> None:
        self._hold, self._loop = hold, loop

    def __getattr__(self, name: str):
        value = getattr(self._hold, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return lambda *args: self._loop.run_until_complete(value(*args))

    def __enter__(self):
        return self._loop.run_until_complete(self._hold.__aenter__())

    def __exit__(self, *error) -> None:
        self._loop.run_until_complete(self._hold.__aexit__(*error))


Make = Callable[..., ShieldClient]


@pytest.fixture(params=["sync", "async"])
def make(request, monkeypatch) -> Iterator[Make]:
    """Makes a client of either colour that waits in no time and remembers how long it would have waited."""
    made: list[ShieldClient | InStep] = []

    def client(handler: Callable[[httpx.Request], httpx.Response] | None, url: str = URL, **options):
        transport = None if handler is None else httpx.MockTransport(handler)
        waits: list[float] = []
        if request.param == "sync":
            found = ShieldClient(url, transport=transport, **options)
            found._sleep = waits.append
            made.append(found)
        else:
            inner = AsyncShieldClient(url, transport=transport, **options)

            async def no_time(seconds: float) -> None:
                waits.append(seconds)

            inner._sleep = no_time
            found = InStep(inner)
            made.append(found)
        found.waits = waits
        return found

    yield client
    for each in made:
        each.finish() if isinstance(each, InStep) else each.close()


def bodies(requests: list[httpx.Request]) -> list[dict]:
    return [json.loads(request.content) for request in requests]


# -- the verbs ---------------------------------------------------------------------------------------


def test_the_whole_conversation_with_a_guard(make: Make, tmp_path: Path):
    """Every verb does over the wire what it does in the library."""
    service = Guarded()
    client = make(service)
    taken = client.spend("100", {"platform": "meta"}, "order-1")
    assert (taken.allowed, taken.amount, taken.currency, taken.chain) == (True, "100.00", "USD", CHAIN)
    assert client.spend("100", ["platform:meta"], "order-1") == taken
    assert [each.allowed for each in client.spend_many(["0.01", ("0.02", {"platform": "x"}), "1000"])] == [
        True,
        True,
        False,
    ]
    assert client.check("1").allowed
    assert client.check().allowed
    assert client.check(ltv="5").reason == "ltv_below_minimum"
    assert client.record("50").allowed
    hold = client.reserve("80", key="h", seconds=60)
    assert (hold.amount, hold.is_open, hold.deadline is not None) == ("80.00", True, True)
    assert [each.id for each in client.reservations()] == [hold.id]
    settled = hold.commit("64.20")
    assert (settled.actual, settled.reserved, settled.charged, settled.late) == ("64.20", "80.00", "64.20", False)
    assert not hold.is_open
    with client.reserve("10") as other:
        pass
    assert not other.is_open
    assert client.halt("platform:meta", note="stop").halted
    assert client.halts() == ["platform:meta"]
    with pytest.raises(SpendDenied) as refused:
        client.spend("1", {"platform": "meta"})
    assert refused.value.reason == "halted"
    assert not client.resume("platform:meta").halted
    budgets = client.budgets("default")
    assert budgets.meters() == service.guard.status("default")
    policy = tmp_path / "policy.yaml"
    policy.write_text("budgets:\n  - {name: small, scope: '*', limit: '50', window: 60s}\n")
    found = client.simulate(policy)
    assert found == service.guard.simulate(policy)
    assert found.newly_refused
    policy.write_text("budgets: 5\n")
    with pytest.raises(PolicyError) as wrong:
        client.simulate(policy)
    assert wrong.value.problems
    assert client.decisions(limit=5, since=datetime.now(UTC), outcome="denied").next is None
    assert client.decision("0" * 16) == {"event_id": "0" * 16}
    assert client.health() == {"status": "ok"}


def test_a_refusal_is_the_error_that_the_library_raises(make: Make):
    """With reason, budget, what is left, when to come again; and its whole outcome for whoever wants it."""
    service = Guarded()
    client = make(service)
    client.spend("450")
    with pytest.raises(SpendDenied) as far:
        client.spend("100")
    error = far.value
    assert (error.reason, error.budget, error.remaining) == ("budget_exhausted", "default", "50.00")
    assert error.retry_after is not None
    assert error.retry_after > 0
    assert error.event_id
    outcome = outcome_of(error)
    assert outcome is not None
    assert (outcome.amount, outcome.limit, outcome.window_seconds) == ("100.00", "500.00", 60)
    with pytest.raises(SpendDenied):
        client.reserve("100")
    assert len(service.asked) == 3


def test_bad_input_never_leaves_the_house(make: Make):
    """What the library refuses to read is refused before anything is sent."""
    service = Guarded()
    client = make(service)
    for call in (
        lambda: client.spend("-1"),
        lambda: client.spend("1", {"Bad": "x"}),
        lambda: client.spend("1", key=""),
        lambda: client.spend_many([]),
        lambda: client.commit("nonsense", "1"),
        lambda: client.halt("meta"),
        lambda: client.reserve("1", seconds=-1),
        lambda: client.decision("nonsense"),
        lambda: client.decisions(since=datetime(2026, 1, 1)),
    ):
        with pytest.raises(InvalidInput):
            call()
    with pytest.raises(InvalidMoney):
        client.spend(1.5)
    assert service.asked == []


def test_conflicts_come_back_as_themselves(make: Make):
    client = make(Guarded())
    client.spend("1", key="k")
    with pytest.raises(KeyReused) as caught:
        client.spend("2", key="k")
    assert caught.value.hint
    with pytest.raises(HoldUnknown):
        client.release("f" * 32)
    hold = client.reserve("5")
    with pytest.raises(errors.CommitExceedsHold):
        hold.commit("6")
    assert hold.is_open
    hold.release()
    with pytest.raises(errors.HoldClosed):
        client.commit(hold.id, "1")


# -- trying again ------------------------------------------------------------------------------------


def flaky(service: Guarded, *first: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
    """The service behind something that answers (or raises) these first; what it was asked counts as well."""
    waiting = list(first)

    def answer(request: httpx.Request) -> httpx.Response:
        if waiting:
            service.asked.append(request)
            found = waiting.pop(0)
            if isinstance(found, Exception):
                raise found
            # A response is read once, and these are tables for many tests.
            return httpx.Response(found.status_code, headers=found.headers, content=found.content)
        return service(request)

    return answer


PASSING = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("cut off"),
    httpx.Response(502, text="bad gateway"),
    httpx.Response(503, json=describe_error(LedgerUnavailable("disk full"), 503)),
    httpx.Response(504),
]


@pytest.mark.parametrize("trouble", PASSING, ids=lambda each: str(getattr(each, "status_code", type(each).__name__)))
@pytest.mark.parametrize("call", ["spend", "spend_many", "reserve", "record"])
def test_a_call_that_is_tried_again_is_the_same_call(make: Make, call: str, trouble):
    """A key is made when the caller gives none, and it is the same on every try."""
    service = Guarded()
    client = make(flaky(service, trouble, trouble))
    getattr(client, call)(["7"] if call == "spend_many" else "7")
    sent = bodies(service.asked)
    assert len(sent) == 3
    assert len({json.dumps(body) for body in sent}) == 1
    assert len(sent[0]["key"]) == 32
    getattr(client, call)(["7"] if call == "spend_many" else "7")
    assert bodies(service.asked)[-1]["key"] != sent[0]["key"]


def test_the_callers_key_is_kept(make: Make):
    service = Guarded()
    make(flaky(service, httpx.ReadTimeout("slow"))).spend("7", key="mine")
    assert [body["key"] for body in bodies(service.asked)] == ["mine", "mine"]


def test_an_answer_that_was_lost_is_not_a_second_spend(make: Make):
    """The service took the money, the reply never came: the next try gets the first answer."""
    service = Guarded()
    lost = [True]

    def answer(request: httpx.Request) -> httpx.Response:
        response = service(request)
        if lost.pop() if lost else False:
            raise httpx.ReadError("gone")
        return response

    client = make(answer)
    client.spend("100")
    (meter,) = service.guard.status()
    assert meter.spent == 100_000_000


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 429, 500, 501, 302])
def test_every_other_status_is_an_answer(make: Make, status: int):
    """It is raised at once; a redirect is not followed, and carries nothing anywhere."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, headers={"Location": "http://elsewhere.test/", "Retry-After": "1"}, text="so")

    expected = {
        400: InvalidInput,
        401: Unauthenticated,
        403: Forbidden,
        409: Conflict,
        413: InvalidInput,
        429: Unavailable,
    }
    with pytest.raises(KikiError) as caught:
        make(answer).spend("1")
    assert type(caught.value) is expected.get(status, ShieldUnreachable)
    assert str(status) in str(caught.value)
    assert len(asked) == 1


def test_tries_end_and_say_so(make: Make):
    """With growing waits between them, and the last error in words."""
    service = Guarded()
    client = make(flaky(service, *[httpx.ConnectError("refused")] * 99), retries=4)
    with pytest.raises(ShieldUnreachable, match=r"refused \(5 tries\)") as caught:
        client.spend("1")
    assert caught.value.hint
    assert len(service.asked) == 5
    assert all(0.05 * 2**n <= wait <= 0.1 * 2**n for n, wait in enumerate(client.waits))
    with pytest.raises(ShieldUnreachable, match=r"refused$"):
        make(flaky(service, httpx.ConnectError("refused")), retries=0).spend("1")


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured_up_to_a_bound(make: Make, date: bool):
    """Seconds or a date; who asks for longer is not waited for."""

    def busy(seconds: int) -> httpx.Response:
        moment = datetime.fromtimestamp(time.time() + seconds + 0.9, UTC)
        said = format_datetime(moment, usegmt=True) if date else str(seconds)
        return httpx.Response(503, headers={"Retry-After": said}, json=describe_error(LedgerUnavailable(), 503))

    service = Guarded()
    began = time.monotonic()
    client = make(flaky(service, busy(3)))
    assert client.spend("1").allowed
    assert 2 - (time.monotonic() - began) <= client.waits[0] <= 4
    service.asked.clear()
    client = make(flaky(service, busy(120)))
    with pytest.raises(LedgerUnavailable) as caught:
        client.spend("1")
    assert caught.value.retry_after is not None
    assert 119 - (time.monotonic() - began) <= caught.value.retry_after <= 121
    assert (len(service.asked), client.waits) == (1, [])


def test_all_tries_together_have_a_deadline(make: Make):
    """However many tries are allowed, none begins after it."""
    now = [0.0]

    def slow(request: httpx.Request) -> httpx.Response:
        now[0] += 4
        raise httpx.ReadTimeout("slow")

    client = make(slow, retries=1000, deadline=10)
    inner = client._client if isinstance(client, InStep) else client
    inner._clock = lambda: now[0]
    with pytest.raises(ShieldUnreachable, match="3 tries"):
        client.spend("1")


def all_kinds(kind: type[KikiError] = KikiError) -> list[type[KikiError]]:
    children = (child for child in kind.__subclasses__() if child.__module__ == "kiki.errors")
    return [kind, *(each for child in children for each in all_kinds(child))]


@pytest.mark.parametrize("kind", [kind for kind in all_kinds() if kind not in {errors.MissingExtra, SpendDenied}])
def test_every_error_of_the_service_is_raised_as_itself(make: Make, kind: type[KikiError]):
    """No code of the tree comes back as another class."""
    needed = {
        errors.ConsentDenied: {"purpose": "marketing", "state": "none"},
        errors.EvidenceInvalid: {"place": "here"},
        errors.PointsShort: {"available": 7},
        errors.CodeDenied: {"reason": "expired"},
    }
    said = ["line 1: wrong"] if issubclass(kind, errors.ConfigurationError) else "so it is"
    error = kind(said, **needed.get(kind, {}))
    with pytest.raises(KikiError) as caught:
        make(lambda _: httpx.Response(418, json=describe_error(error, 418)), retries=0).halts()
    assert type(caught.value) is kind
    assert "so it is" in str(caught.value) or "line 1" in str(caught.value)


@pytest.mark.parametrize(
    "response",
    [
        {"text": "<html>hello</html>"},
        {"content": b""},
        {"content": b"\xff\xfe"},
        {"json": {}},
        {"json": []},
        {"json": {"allowed": "yes"}},
        {"content": b"[" * 100_000},
        {"json": {"currency": "USD", "window": "local", "at": "", "budgets": [{}], "halts": []}},
    ],
)
def test_a_reply_that_makes_no_sense_is_no_answer(make: Make, response: dict):
    """200 alone proves nothing: the spend counts as unanswered."""
    client = make(lambda _: httpx.Response(200, **response))
    for call in (lambda: client.spend("1"), client.budgets, client.reservations):
        with pytest.raises(ShieldUnreachable, match="does not say"):
            call()


def test_numbers_that_are_none_are_no_answer(make: Make):
    meter = {"budget": "b", "scope": "*", "limit": "x", "window_seconds": 1, "spent": "0", "held": "0", "remaining": "0", "room_at": None}  # fmt: skip
    said = {"currency": "USD", "window": "local", "at": "", "budgets": [meter], "halts": []}
    with pytest.raises(ShieldUnreachable, match="does not say"):
        make(lambda _: httpx.Response(200, json=said)).budgets()
    with pytest.raises(ShieldUnreachable, match="does not say"):
        make(lambda _: httpx.Response(200, json={"decisions": "many"})).simulate(__file__)


def test_a_batch_without_all_its_outcomes_is_no_answer(make: Make):
    said = {"event_id": "0" * 16, "chain": CHAIN, "currency": "USD", "admitted": 0, "refused": 0, "outcomes": []}
    with pytest.raises(ShieldUnreachable, match="0 outcomes for 2 amounts"):
        make(lambda _: httpx.Response(200, json=said)).spend_many(["1", "2"])


def test_a_200_that_says_no_is_a_refusal(make: Make):
    """Money is never taken for admitted because of a status."""
    guard = BudgetGuard.open(limit="1")
    refused = wire_answer.outcome_bytes(
        guard.decide(wire_call.spend_body({"amount": 5}, "USD")).outcome(), CHAIN, "USD"
    )
    with pytest.raises(SpendDenied):
        make(lambda _: httpx.Response(200, content=refused)).spend("5")


def foreign_errors(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for child in kind.__subclasses__() for each in foreign_errors(child))]


@pytest.mark.parametrize(
    "kind", [*foreign_errors(httpx.HTTPError), *foreign_errors(httpx.StreamError), httpx.InvalidURL, OSError]
)
def test_no_error_of_httpx_gets_out(make: Make, kind: type[Exception]):
    """Callers catch the errors of kiki and no others."""

    def broken(request: httpx.Request) -> httpx.Response:
        if kind is httpx.HTTPStatusError:
            raise kind("broken", request=request, response=httpx.Response(500))
        raise (
            kind()
            if kind in {httpx.StreamConsumed, httpx.StreamClosed, httpx.ResponseNotRead, httpx.RequestNotRead}
            else kind("broken")
        )

    with pytest.raises(ShieldUnreachable):
        make(broken, retries=0).spend("1")


# -- where and as whom -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://localhost:8081"),
        ({"SHIELD_URL": "http://a:1/check"}, "http://a:1"),
        ({"SHIELD_URL": "http://a:1", "KIKI_SHIELD_URL": "http://b:2/"}, "http://b:2"),
        ({"KIKI_SHIELD_URL": "https://b:2/shield/check"}, "https://b:2/shield"),
    ],
)
def test_the_address_comes_from_the_environment(monkeypatch, environ: dict[str, str], url: str):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with ShieldClient() as client:
        assert client.url == url


@pytest.mark.parametrize("url", ["http://a:1", "http://a:1/", "http://a:1/check", "http://a:1/check/"])
def test_the_address_is_the_same_with_and_without_check(url: str):
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"halts": []})

    with ShieldClient(url, transport=httpx.MockTransport(answer)) as client:
        client.halts()
    assert asked == ["http://a:1/v1/halts"]


@pytest.mark.parametrize(
    "url", ["", "localhost:8081", "ftp://a", "http://", "http://u:secret@a", "http://a?x=1", "http://[::"]
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(KikiError) as caught:
        ShieldClient(url)
    assert "secret" not in str(caught.value) or "://" in url


def test_the_token_goes_along_and_is_never_shown(make: Make, monkeypatch, tmp_path: Path):
    """From the argument, else the variable, else the file."""
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200, json={"halts": []})

    file = tmp_path / "token"
    file.write_text("from-file\n")
    monkeypatch.setenv("KIKI_SHIELD_TOKEN_FILE", str(file))
    make(answer).halts()
    monkeypatch.setenv("KIKI_SHIELD_TOKEN", "from-variable")
    make(answer).halts()
    client = make(answer, token="from-argument")
    client.halts()
    assert seen == ["Bearer from-file", "Bearer from-variable", "Bearer from-argument"]
    assert "from-argument" not in repr(client)
    with pytest.raises(SettingsError, match="one word") as caught:
        make(answer, token="two words\n")
    assert "two" not in str(caught.value)
    monkeypatch.delenv("KIKI_SHIELD_TOKEN")
    monkeypatch.setenv("KIKI_SHIELD_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="cannot be read"):
        make(answer)


def test_access_denied_comes_back_as_itself(make: Make):
    for kind, status in ((Unauthenticated, 401), (Forbidden, 403)):
        with pytest.raises(kind):
            make(lambda _, kind=kind, status=status: httpx.Response(status, json=describe_error(kind(), status))).spend(
                "1"
            )


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch):
    """Money talk stays on the machine; addresses elsewhere use the proxy as everybody does."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    for url, trusted in (("http://localhost:8081", False), ("http://127.0.0.2:1", False), ("http://[::1]:1", False), ("http://shield:80", True)):  # fmt: skip
        with ShieldClient(url) as client:
            assert http_line.httpx_options(client.url)["trust_env"] is trusted


def test_importing_the_client_loads_no_face():
    """It is a library: nothing that draws, parses commands or serves comes with it, but for what httpx brings itself."""

    def loaded(module: str) -> set[str]:
        code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
        return set(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        )

    added = loaded("kiki.shield.shield_client") - loaded("httpx")
    assert added & {"rich", "typer", "click", "aiohttp", "apsw", "grpc", "redis", "uvloop", "yaml"} <= {"yaml"}


def test_both_colours_have_the_same_face():
    """Names, parameters and documentation alike."""
    for name, member in vars(ShieldClient).items():
        if name.startswith("_"):
            continue
        other = getattr(AsyncShieldClient, name)
        assert inspect.signature(member).parameters.keys() == inspect.signature(other).parameters.keys()
        assert member.__doc__ == other.__doc__


def test_the_clients_names_are_the_guards():
    """A script that used a guard can use a client: same verbs, same parameters."""
    for name in ("spend", "spend_many", "check", "reserve", "commit", "release", "record", "halt", "halts"):
        mine, guards = (inspect.signature(getattr(kind, name)).parameters for kind in (ShieldClient, BudgetGuard))
        assert list(mine) == list(guards), name


# -- against real sockets ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with Real() as server:
        yield server


@pytest.mark.parametrize("bad", ["busy", "hang up", "sleep", "lose", "dribble"])
def test_a_service_that_stumbles_takes_the_money_once(make: Make, real: Real, bad: str):
    """Refused, cut off, silent, or too slow: the same key goes out again and one spend is counted."""
    real.service, real.keys, real.bad = Guarded(), [], [bad]
    # What comes never or drop by drop is given up soon; a good answer may be late on a busy machine, and is asked for again.
    client = make(None, real.url, timeout=1.5 if bad in {"sleep", "dribble"} else 60.0)
    assert client.spend("100").allowed
    assert len(real.keys) >= 2
    assert len(set(real.keys)) == 1
    while bad == "sleep" and len(real.service.asked) < 2:
        time.sleep(0.01)  # the slow one is still at work
    assert [meter.spent for meter in real.service.guard.status()] == [100_000_000]


def test_nobody_there_is_said_at_once(make: Make):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(ShieldUnreachable, match="cannot be reached"):
            make(None, f"http://127.0.0.1:{holder.getsockname()[1]}", retries=0).spend("1")
        assert time.monotonic() - began < 25, "it did not wait until the end of its patience"


def test_one_client_serves_many_threads(real: Real):
    real.service, real.bad = Guarded("100000"), []
    with ShieldClient(real.url) as client:
        threads = [threading.Thread(target=lambda: [client.spend("1") for _ in range(5)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [meter.spent for meter in real.service.guard.status()] == [40_000_000]
