"""What only a shared window has to get right: a Redis that fails, forgets, lies about time, or is shared.

Every failure is a real one, of a real Redis. Where time matters a test hands the clock in and moves it; where a test has to
wait, spans are short; elsewhere a minute, which no test takes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median

import pytest
from redis import Redis

from kiki.clock import SECOND
from kiki.errors import CapacityReached, Conflict, HoldUnknown, InvalidMoney, KeyReused, PolicyError, WindowUnavailable
from kiki.shield.budget import Reason
from kiki.shield.policy import single_budget
from kiki.shield.redis_epoch import KnownEpoch
from kiki.shield.redis_script import SUM_MAX
from kiki.shield.redis_window import RedisWindow
from kiki.shield.window import Answer, Ask, OpenHold, Verb
from tests.servers import RedisServer, free_port, running_redis
from tests.shield.window_contract import (
    FakeClock,
    ask_spend,
    budget,
    commit,
    hold_id,
    one,
    policy,
    record,
    release,
    reserve,
    spend,
    spent,
)


class Hidden:
    """A secret that must not turn up in any message."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text


@dataclass(frozen=True)
class At:
    """An address as the settings would give it."""

    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    cluster: bool = False
    username: str | None = None
    password: Hidden | None = None
    db: int = 0
    is_loopback: bool = True

    @classmethod
    def of(cls, server: RedisServer, **options) -> At:
        return cls(((server.host, server.port),), **options)


Connect = Callable[..., RedisWindow]
_LIMIT = single_budget(100, 60 * SECOND)
_SOON = single_budget(100, SECOND)
"""For tests that wait until it is over."""
_chains = itertools.count(1)


@pytest.fixture
def connect():
    """Makes windows, each with a chain of its own unless one is given, and closes them at the end."""
    made: list[RedisWindow] = []

    def make(server: RedisServer, rules=_LIMIT, *, is_loopback: bool = True, **options) -> RedisWindow:
        options.setdefault("chain", f"chain{next(_chains)}")
        options.setdefault("timeout", 30.0)  # no answer comes too late on a busy machine
        window = RedisWindow.connect(rules, At.of(server, is_loopback=is_loopback), **options)
        made.append(window)
        return window

    yield make
    for window in made:
        window.close()


@pytest.fixture
def client(redis: RedisServer):
    with Redis(host=redis.host, port=redis.port) as client:
        yield client


def keyed(amount: int, key: str = "k", request: bytes = b"r", verb: Verb = Verb.SPEND) -> Ask:
    return Ask(verb, [amount], key=key, request=request)


def until_ready(window: RedisWindow, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while (reason := window.ready()) is not None:
        assert time.monotonic() < deadline, reason
        time.sleep(0.01)


def is_unavailable(answer: Answer) -> bool:
    return isinstance(answer.error, WindowUnavailable)


# -- the script -----------------------------------------------------------------------------------------


def test_a_forgotten_script_is_loaded_again(redis, connect, client):
    window = connect(redis)
    assert spend(window, 40) is None
    client.script_flush()
    assert spend(window, 40) is None
    assert spent(window) == (80, 0)


def test_a_batch_is_one_call_however_much_it_asks(redis, connect, client):
    names = [f"k{number}" for number in range(6)]
    rules = policy(*(budget(name, f"{name}:*", (10**6, 1), (10**6, 60), (10**6, 3600)) for name in names))
    window = connect(redis, rules)
    scopes = tuple(f"{name}:x" for name in names)
    spend(window, 1, *scopes)
    client.config_resetstat()
    window.take([ask_spend(1, *scopes)] * 64)
    calls = {name: each["calls"] for name, each in client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 1
    assert calls["cmdstat_hget"] == 18  # each window is read once


def test_sequences_are_dense_and_shared(redis, connect):
    first, second = connect(redis), connect(redis)
    places = [one(window, ask_spend(1)).sequence for window in (first, second, first, second)]
    places += [answer.sequence for answer in first.take([ask_spend(1)] * 3)]
    assert places == list(range(places[0], places[0] + 7))
    assert first.epoch == second.epoch != ""


# -- sharing --------------------------------------------------------------------------------------------


def test_threads_with_a_window_each_are_never_over(redis, connect):
    rules = single_budget(1000, 60 * SECOND)
    taken: list[int] = []

    def run(window: RedisWindow, amount: int) -> None:
        for _ in range(100):
            answers = window.take([ask_spend(amount)] * 3)
            taken.extend(amount for answer in answers if not answer.refusals)

    threads = [threading.Thread(target=run, args=(connect(redis, rules), each)) for each in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000  # the ones fill every gap


def _race(port: int, chain: str) -> list[tuple[int, int]]:
    window = RedisWindow.connect(single_budget(300, SECOND // 2), At((("127.0.0.1", port),)), chain=chain, timeout=30)
    taken = []
    until, end = time.monotonic() + 1.6, time.monotonic() + 60
    # Each goes on until it has had so much that all together have had more than two windows hold.
    while time.monotonic() < until or (sum(amount for _, amount in taken) < 200 and time.monotonic() < end):
        taken += [(answer.at, 7) for answer in window.take([ask_spend(7)] * 5) if not answer.refusals]
        time.sleep(0.001)
    window.close()
    return taken


def test_processes_are_never_over_in_any_window(redis):
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        taken = sorted(itertools.chain.from_iterable(pool.map(_race, [redis.port] * 3, "abc")))
    worst = max(sum(amount for other, amount in taken if at - SECOND // 2 < other <= at) for at, _ in taken)
    assert worst <= 300
    assert sum(amount for _, amount in taken) >= 2 * 294


def test_another_process_can_commit_or_release_a_hold(redis, connect):
    first, second = connect(redis, single_budget(100)), connect(redis, single_budget(100))
    one_hold, other = reserve(first, 60), reserve(first, 40)
    assert {hold.id for hold in second.holds()} == {one_hold.hold, other.hold}
    assert commit(second, one_hold.hold, 50).charged == 50
    assert release(second, other.hold).reserved == 40
    assert spent(first) == (50, 0)


def test_a_process_finds_the_holds_that_its_ledger_does_not_know(redis, connect):
    first = connect(redis, chain="mine")
    reserve(connect(redis, chain="other"), 10)
    held = reserve(first, 10)
    again = connect(redis, chain="mine")
    assert [hold.id for hold in again.own_holds()] == [held.hold]


def test_a_halt_is_in_force_for_everybody(redis, connect):
    first, second = connect(redis), connect(redis)
    first.halt("platform:*", on=True)
    refused = spend(second, 1, "platform:meta")
    assert refused is not None
    assert (refused.reason, refused.scope) == (Reason.HALTED, "platform:meta")
    second.halt("platform:*", on=False)
    assert first.halts() == []
    assert spend(first, 1, "platform:meta") is None


# -- persons --------------------------------------------------------------------------------------------


def _as_person(reference: str, person: str, amount: int, verb: Verb = Verb.SPEND) -> Ask:
    named = f"customer:{reference}"
    return Ask(verb, [amount], ((named, "platform:meta"),), hold=hold_id(), persons={named: f"customer:{person}"})


def test_a_person_has_one_budget_whatever_the_references(redis, connect):
    rules = policy(budget("each", "customer:*", (100, 60)))
    first, second = connect(redis, rules), connect(redis, rules)
    assert not one(first, _as_person("aaaa", "jane@example.com", 70)).refusals
    refused = one(second, _as_person("bbbb", "jane@example.com", 70)).refusals[0]
    assert (refused.budget, refused.scope, refused.remaining) == ("each", "customer:bbbb", 30)
    assert not one(second, _as_person("cccc", "joe@example.com", 70)).refusals


def test_nothing_personal_and_no_ttl_in_redis(redis, connect, client):
    window = connect(redis, policy(budget("all", "*", (1000, 60)), budget("each", "customer:*", (100, 60))))
    ask = _as_person("4711", "jane@example.com", 50)
    ask.key, ask.request = "jane-1", b"50 of jane@example.com"
    for each in (
        ask,
        _as_person("4711", "jane@example.com", 90),
        _as_person("4711", "jane@example.com", 9, Verb.RESERVE),
    ):
        one(window, each)
    window.halt("customer:4711", on=True, persons={"customer:4711": "customer:jane@example.com"})
    refused = one(window, _as_person("4711", "jane@example.com", 1)).refusals[0]
    assert (refused.reason, refused.scope) == (Reason.HALTED, "customer:4711")
    assert window.halts() == ["customer:4711"]
    keys = list(client.scan_iter())
    assert len(keys) >= 8
    for key in keys:
        assert client.ttl(key) == -1
        assert key.startswith(b"{kiki}:")
        kind = client.type(key)
        content = client.hgetall(key) if kind == b"hash" else client.zrange(key, 0, -1, withscores=True)
        for secret in (b"jane", b"example.com", b"4711"):
            assert secret not in key
            assert secret not in repr(content).encode()


# -- keys -----------------------------------------------------------------------------------------------


def test_a_repeat_is_answered_as_the_first_time(redis, connect):
    first, second = connect(redis, single_budget(100)), connect(redis, single_budget(100))
    answer = one(first, keyed(60))
    assert not answer.repeated
    again = one(second, keyed(60))
    assert again.repeated
    assert (again.at, again.sequence, again.epoch) == (answer.at, answer.sequence, answer.epoch)
    assert spent(first) == (60, 0)


def test_a_refusal_is_repeated_too(redis, connect):
    window = connect(redis, single_budget(100))
    asked = Ask(Verb.SPEND, [60, 60, 30], key="k", request=b"r")
    answer = one(window, asked)
    assert list(answer.refusals) == [1]
    again = one(window, asked)
    assert (again.refusals, again.repeated) == (answer.refusals, True)
    assert spent(window) == (90, 0)


def test_a_reservation_is_repeated_with_its_first_hold(redis, connect):
    window = connect(redis, single_budget(100))
    asks = [keyed(60, verb=Verb.RESERVE) for _ in range(2)]
    for ask in asks:
        ask.hold, ask.hold_span = hold_id(), 60 * SECOND
    answer, again = window.take(asks)  # in one batch, even
    assert answer.hold == asks[0].hold
    assert (again.hold, again.deadline, again.repeated) == (answer.hold, answer.deadline, True)
    assert spent(window) == (0, 60)


def test_the_same_key_for_something_else_is_a_conflict(redis, connect):
    window = connect(redis, single_budget(100))
    one(window, keyed(60))
    assert isinstance(one(window, keyed(61, request=b"s")).error, KeyReused)
    assert spent(window) == (60, 0)


@pytest.mark.parametrize("hung_up", [False, True])
def test_a_key_is_known_again_under_a_secret_that_is_new_to_this_process(redis, connect, client, hung_up):
    first = connect(redis, single_budget(100))
    one(first, ask_spend(1))
    client.flushall()
    second = connect(redis, single_budget(100))  # a newcomer, with a secret of its own
    answer = one(second, keyed(60, verb=Verb.RECORD))
    if hung_up:
        client.client_kill_filter(_type="normal")
    again = one(first, keyed(60, verb=Verb.RECORD))
    assert (again.repeated, again.sequence) == (True, answer.sequence)


def test_a_repeated_settlement_is_answered_again(redis, connect):
    window = connect(redis, single_budget(100))
    held = reserve(window, 60)
    first, again = commit(window, held.hold, 50), commit(window, held.hold, 50)
    assert (again.repeated, again.charged, again.reserved, again.at) == (True, 50, 60, first.at)
    assert isinstance(commit(window, held.hold, 49).error, HoldUnknown)
    assert spent(window) == (50, 0)


def test_keys_outlive_their_retention_and_are_refused_at_the_cap(redis, connect):
    clock = FakeClock()
    retention = 100 * SECOND
    window = connect(
        redis, single_budget(10**6, SECOND), clock=clock, local_clock=clock, key_retention=retention, keys_max=3
    )
    for name in "abc":
        assert one(window, keyed(1, name)).error is None
    assert isinstance(one(window, keyed(1, "d")).error, CapacityReached)
    assert one(window, keyed(1, "a")).repeated
    assert spend(window, 1) is None  # without a key it goes on
    clock.now += retention
    assert one(window, keyed(1, "c")).repeated
    clock.now += retention - 1
    assert one(window, keyed(1, "c")).repeated
    clock.now += 1
    assert not one(window, keyed(1, "c")).repeated


# -- numbers --------------------------------------------------------------------------------------------


def test_sums_past_the_exact_doubles_are_refused(redis, connect):
    with pytest.raises(PolicyError, match="9007199254"):
        connect(redis, single_budget(SUM_MAX + 1))
    window = connect(redis, single_budget(SUM_MAX, 60 * SECOND))
    with pytest.raises(PolicyError):
        window.use(single_budget(2**60))
    assert spend(window, SUM_MAX - 1) is None
    assert spent(window) == (SUM_MAX - 1, 0)
    assert isinstance(record(window, 2).error, Conflict)
    assert isinstance(record(window, 2**62).error, InvalidMoney)
    refused = spend(window, SUM_MAX + 1)
    assert refused is not None
    assert refused.reason is Reason.ABOVE_LIMIT
    assert spend(window, 1) is None
    assert spent(window) == (SUM_MAX, 0)
    assert spend(window, 1) is not None


# -- first contact --------------------------------------------------------------------------------------


def test_on_the_loopback_a_first_contact_starts_at_once(redis, connect):
    window = connect(redis, single_budget(100, 3600 * SECOND))
    assert window.ready() is None
    assert spend(window, 100) is None


def test_elsewhere_a_first_contact_waits_out_the_longest_window(redis, connect):
    clock = FakeClock()
    rules = policy(budget("b", "*", (100, 20), (100, 80)))
    window = connect(redis, rules, is_loopback=False, clock=clock, local_clock=clock)
    assert "set up just now" in (window.ready() or "")
    answer = one(window, ask_spend(1))
    assert isinstance(answer.error, WindowUnavailable)
    assert answer.error.retry_after is not None
    assert 0 < answer.error.retry_after <= 80
    assert is_unavailable(one(window, Ask(Verb.CHECK, [1])))
    assert record(window, 30).error is None
    newcomer = connect(redis, is_loopback=False, clock=clock, local_clock=clock)
    assert newcomer.epoch == window.epoch
    assert newcomer.ready() is not None
    assert [each.spent for each in window.status()] == [30, 30]
    clock.now += 80 * SECOND - 1
    assert window.ready() is not None
    clock.now += 1
    assert window.ready() is None
    assert spend(window, 70) is None


def test_a_known_epoch_that_is_there_is_taken_up(redis, connect):
    first = connect(redis, chain="a")
    last = one(first, ask_spend(1))
    again = connect(redis, chain="a", known=KnownEpoch(last.epoch, last.sequence))
    assert again.ready() is None
    after = one(again, ask_spend(1))
    assert (after.epoch, after.sequence) == (last.epoch, last.sequence + 1)


def test_who_knows_spends_of_an_older_epoch_stops_everybody_once(redis, connect):
    clock = FakeClock()
    newcomer = connect(redis, clock=clock, local_clock=clock)  # on the loopback: it starts at once
    assert spend(newcomer, 1) is None
    elder = connect(redis, known=KnownEpoch("0123456789abcdef", 7), clock=clock, local_clock=clock)
    assert "another process" in (elder.ready() or "")
    assert is_unavailable(one(newcomer, ask_spend(1)))
    clock.now += 60 * SECOND
    assert elder.ready() is None
    # The next one from that epoch finds that the wait was had already.
    late = connect(redis, known=KnownEpoch("0123456789abcdef", 9), clock=clock, local_clock=clock)
    assert late.ready() is None
    assert spend(newcomer, 1) is None


def test_an_epoch_older_than_every_window_stops_nobody(redis, connect):
    first = connect(redis)
    long_ago = KnownEpoch("0123456789abcdef", 7, time.time_ns() // 1000 - 100 * SECOND)
    assert connect(redis, known=long_ago).ready() is None
    assert spend(first, 1) is None


# -- lost state -----------------------------------------------------------------------------------------


def _why_not(window: RedisWindow) -> str:
    """Why a spend was not decided; empty when it was."""
    try:
        return str(one(window, ask_spend(1)).error or "")
    except WindowUnavailable as error:  # new state with a new secret: the batch has to be asked anew
        return str(error)


def _lose_nothing_admitted(windows: list[RedisWindow], reason: str, span: float = 1.0) -> None:
    """Nothing is admitted by anyone until the longest window has passed since the loss was seen."""
    seen = time.monotonic()
    assert reason in _why_not(windows[0])
    while True:
        found = [(_why_not(window), window.ready()) for window in windows]
        if time.monotonic() - seen >= span:
            break  # it may have been over when it was asked
        assert all(why and reason is not None for why, reason in found)
        time.sleep(0.05)
    # One wait, however many found out.
    for window in windows:
        until_ready(window)
        assert spend(window, 1) is None
    assert len({window.epoch for window in windows}) == 1


def test_an_emptied_redis(redis, connect, client):
    windows = [connect(redis, _SOON) for _ in range(3)]
    for window in windows:
        spend(window, 30)
    client.flushall()
    _lose_nothing_admitted(windows, "lost the shared budget windows")


def test_a_process_that_restarts_meanwhile_learns_of_the_loss(redis, connect, client):
    first = connect(redis, _SOON, chain="a")
    last = one(first, ask_spend(100))
    known = KnownEpoch(last.epoch, last.sequence)
    client.flushall()
    _lose_nothing_admitted([connect(redis, _SOON, chain="a", known=known), first], "lost the shared budget windows")


def test_an_older_snapshot(own_redis, connect):
    windows = [connect(own_redis, _SOON) for _ in range(2)]
    spend(windows[0], 10)
    own_redis.command("SAVE")
    spend(windows[0], 90)
    spend(windows[1], 1)
    own_redis.kill()
    own_redis.start()
    _lose_nothing_admitted(windows, "an older copy")


def test_an_older_snapshot_is_found_although_others_went_on_in_it(own_redis, connect):
    quiet, busy = connect(own_redis), connect(own_redis)
    spend(busy, 1)
    own_redis.command("SAVE")
    spend(quiet, 1)
    own_redis.kill()
    own_redis.start()
    for _ in range(10):
        assert spend(busy, 1) is None
    assert is_unavailable(one(quiet, ask_spend(1)))
    assert is_unavailable(one(busy, ask_spend(1)))


def test_a_redis_that_restarts_empty(own_redis, connect):
    window = connect(own_redis, _SOON)
    spend(window, 100)
    own_redis.restart_empty()
    _lose_nothing_admitted([window], "lost the shared budget windows")


@pytest.mark.parametrize(
    "key",
    ["{kiki}:w:1000000:default\t*", "{kiki}:live", "{kiki}:holds", "{kiki}:halts", "{kiki}:keys:1", "{kiki}:scopes"],
)
def test_a_part_that_was_evicted_is_lost_state(redis, connect, client, key):
    clock = FakeClock()
    rules = policy(budget("default", "*", (100, 1)), budget("each", "campaign:*", (100, 1)))
    window = connect(redis, rules, clock=clock, local_clock=clock)
    spend(window, 60, "campaign:a")
    one(window, keyed(1))
    held = reserve(window, 5)
    window.halt("campaign:b", on=True)
    assert client.delete(key) == 1
    answer = one(window, ask_spend(1))
    assert is_unavailable(answer)
    assert "is gone" in str(answer.error)
    assert window.halts() == ["campaign:b"]  # set again by the process that set it
    if key != "{kiki}:holds":
        assert [hold.id for hold in window.holds()] == [held.hold]
        assert spent(window) == (0, 5)
    clock.now += SECOND
    assert window.ready() is None
    assert spend(window, 90) is None


def test_the_head_evicted_is_lost_state_even_for_a_newcomer(redis, connect, client):
    spend(connect(redis), 60)
    client.delete("{kiki}:meta")
    assert "is gone" in (connect(redis).ready() or "")


def test_after_a_loss_everybody_counts_their_own_holds_again(redis, connect, client):
    clock = FakeClock()
    mine: list[OpenHold] = []
    window = connect(redis, clock=clock, local_clock=clock)
    window.on_new_epoch(lambda: mine)
    held = reserve(window, 80)
    mine.append(OpenHold(held.hold, 80, (), None, held.at))
    client.flushall()
    assert is_unavailable(one(window, ask_spend(1)))
    assert spent(window) == (0, 80)
    window.adopt_holds(mine)
    assert spent(window) == (0, 80)  # once
    clock.now += 60 * SECOND
    assert window.ready() is None
    assert spend(window, 21) is not None
    assert commit(window, held.hold, 10).error is None
    window.adopt_holds(mine)  # it is resolved, whatever we thought
    assert spent(window) == (10, 0)


def test_holds_that_only_the_ledger_knows_are_counted_before_the_first_decision(redis, connect):
    window = connect(redis)
    window.halt("platform:meta", on=True)  # as a guard does while it opens
    window.on_new_epoch(lambda: [OpenHold("a" * 32, 80, (), None, 1)])
    assert spend(window, 21) is not None
    assert spent(window) == (0, 80)


def test_holds_count_again_even_over_the_limit_and_a_person_keeps_the_budget(redis, connect, client):
    clock = FakeClock()
    rules = policy(budget("each", "customer:*", (100, 60)))
    mine: list[OpenHold] = []
    window = connect(redis, rules, clock=clock, local_clock=clock)
    window.on_new_epoch(lambda: mine)
    answer = one(window, _as_person("aaaa", "jane", 90, Verb.RESERVE))
    mine.append(OpenHold(answer.hold, 90, ("customer:aaaa", "platform:meta"), None, answer.at))
    client.flushall()
    window.use(policy(budget("each", "customer:*", (50, 60))))
    one(window, ask_spend(1))
    clock.now += 60 * SECOND
    assert window.ready() is None
    refused = one(window, _as_person("aaaa", "jane", 1)).refusals[0]
    assert (refused.scope, refused.remaining) == ("customer:aaaa", -40)


# -- the server's clock ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("jump", "is_lost"), [(0.4, False), (0.6, True), (3600, True), (-0.9, False), (-1.1, True)])
def test_a_clock_that_jumps_is_lost_state(redis, connect, jump, is_lost):
    server, local = FakeClock(), FakeClock()
    window = connect(redis, single_budget(100, 60 * SECOND), clock=server, local_clock=local)
    spend(window, 100)
    local.now += SECOND // 1000
    server.now += round(jump * SECOND)
    answer = one(window, ask_spend(1))
    assert is_unavailable(answer) == is_lost
    if is_lost:
        assert "clock of Redis jumped" in (window.ready() or "")
        server.now += 60 * SECOND
        local.now += 60 * SECOND
        assert spend(window, 100) is None
    else:
        assert answer.at >= 0
        assert answer.refusals


def test_a_clock_may_drift_a_little_and_time_passes(redis, connect):
    server, local = FakeClock(), FakeClock()
    window = connect(redis, single_budget(10, 60 * SECOND), clock=server, local_clock=local)
    for _ in range(100):
        server.now += 100_050_000
        local.now += 100_000_000
        assert spend(window, 10) is None


def test_a_call_that_was_held_up_is_no_jump(own_redis, connect):
    window = connect(own_redis)
    spend(window, 1)
    own_redis.pause()
    threading.Timer(0.9, own_redis.resume).start()
    assert spend(window, 1) is None
    assert window.ready() is None


# -- outages --------------------------------------------------------------------------------------------


def test_a_silent_redis_leaves_the_outcome_unknown_and_then_nobody_waits(own_redis, connect):
    window = connect(own_redis, timeout=2.0)
    held = reserve(window, 10)
    own_redis.pause()
    asked = [
        keyed(30),
        Ask(Verb.RESERVE, [5], hold=hold_id()),
        Ask(Verb.RECORD, [1]),
        Ask(Verb.CHECK, [1]),
        Ask(Verb.COMMIT, [10], hold=held.hold),
    ]
    began = time.monotonic()
    answers = window.take(asked)
    assert time.monotonic() - began < 5 * 2.0, "they did not wait one after the other"
    assert [answer.refusals[0].reason for answer in answers[:2]] == [Reason.OUTCOME_UNKNOWN] * 2
    assert all(is_unavailable(answer) for answer in answers[2:])
    took = []
    for _ in range(100):
        began = time.monotonic()
        with pytest.raises(WindowUnavailable):
            window.take([keyed(30)])
        took.append(time.monotonic() - began)
    assert median(took) < 2.0, "nobody else waited"
    assert "did not answer" in (window.ready() or "") or "does not answer" in (window.ready() or "")
    own_redis.resume()
    until_ready(window)
    # The call lay in the server's buffer and was carried out: the key tells, and charges nothing again.
    again = one(window, keyed(30))
    assert not again.refusals
    assert spent(window)[0] in (41, 30)
    assert spend(window, 100 - sum(spent(window))) is None
    assert spend(window, 1) is not None


def test_a_killed_redis_certainly_took_nothing(own_redis, connect):
    window = connect(own_redis)
    spend(window, 1)
    own_redis.kill()
    time.sleep(0.05)
    with pytest.raises(WindowUnavailable):
        window.take([ask_spend(1)])
    assert str(own_redis.port) in (window.ready() or "")


def test_an_idle_connection_that_was_closed_is_no_outage(redis, connect, client):
    window = connect(redis)
    spend(window, 1)
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    end = time.monotonic() + 60
    while len(client.client_list()) > 1:
        assert time.monotonic() < end
    time.sleep(0.05)
    assert spend(window, 1) is None


def test_a_loopback_address_that_does_not_answer_is_for_the_caller_to_replace():
    address = At((("127.0.0.1", free_port()),))
    with pytest.raises(WindowUnavailable, match="does not answer"):
        RedisWindow.connect(_LIMIT, address, chain="a")


def test_another_address_is_waited_for_in_the_background(tmp_path, connect):
    with running_redis(tmp_path / "redis") as server:
        server.stop()
        window = connect(server, single_budget(100, SECOND // 4), is_loopback=False)
        assert "does not answer" in (window.ready() or "")
        began = time.monotonic()
        with pytest.raises(WindowUnavailable):
            window.take([ask_spend(1)])
        with pytest.raises(WindowUnavailable):
            window.halt("platform:meta", on=True)
        assert time.monotonic() - began < 30, "nobody waits for who is not there"
        server.start()
        until_ready(window)
        assert spend(window, 1) is None
        assert window.halts() == ["platform:meta"]  # what was asked for in vain is done now


def test_what_redis_refuses_is_said_clearly(own_redis, connect):
    window = connect(own_redis)
    spend(window, 1)
    own_redis.command("CONFIG SET maxmemory 1")
    with pytest.raises(WindowUnavailable, match=r"out of memory \(OOM\)"):
        window.take([ask_spend(1)])
    own_redis.command("CONFIG SET maxmemory 0")
    until_ready(window)
    assert spent(window) == (1, 0) or spent(window) == (0, 0)
    own_redis.command("REPLICAOF 127.0.0.1 1")
    with pytest.raises(WindowUnavailable, match=r"\(READONLY\)") as caught:
        window.take([ask_spend(1)])
    assert "primary" in (caught.value.hint or "")


@pytest.mark.parametrize(("password", "code"), [(None, "NOAUTH"), ("wrong-secret", "WRONGPASS")])
def test_a_password_problem_is_named_and_never_printed(tmp_path, password, code):
    with running_redis(tmp_path / "redis") as server:
        server.command("CONFIG SET requirepass right-secret")
        address = At.of(server, password=Hidden(password) if password else None)
        window = RedisWindow.connect(_LIMIT, address, chain="a", timeout=30)  # it answers, so there is no falling back
        try:
            reason = window.ready() or ""
            assert code in reason
            assert "secret" not in reason
        finally:
            window.close()
        right = RedisWindow.connect(_LIMIT, At.of(server, password=Hidden("right-secret")), chain="a", timeout=30)
        assert right.ready() is None
        right.close()


def test_an_evicting_redis_is_named_and_admits_nothing(tmp_path, connect):
    with running_redis(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as server:
        window = connect(server, _SOON)
        assert "allkeys-lru" in (window.ready() or "")
        assert is_unavailable(one(window, ask_spend(1)))
        assert is_unavailable(one(window, Ask(Verb.CHECK, [1])))
        assert record(window, 1).error is None
        server.command("CONFIG SET maxmemory-policy volatile-lru")
        until_ready(window)
        assert spend(window, 1) is None


# -- upkeep ---------------------------------------------------------------------------------------------


def test_idle_windows_are_removed_by_us(redis, connect, client):
    clock = FakeClock()
    window = connect(redis, policy(budget("each", "campaign:*", (100, 10))), clock=clock, local_clock=clock)
    for number in range(50):
        spend(window, 1, f"campaign:{number}")
    held = reserve(window, 5, "campaign:held")
    assert client.zcard("{kiki}:live") == 51
    clock.now += 11 * SECOND
    for _ in range(10):
        spend(window, 1, "campaign:new")
    assert client.zcard("{kiki}:live") == 2
    assert client.hlen("{kiki}:scopes") == 2
    assert len(list(client.scan_iter(match="{kiki}:w:*"))) == 2
    assert release(window, held.hold).error is None


def test_windows_of_a_lost_epoch_are_removed_by_us(redis, connect, client):
    clock = FakeClock()
    window = connect(redis, policy(budget("each", "campaign:*", (100, 10))), clock=clock, local_clock=clock)
    for number in range(20):
        spend(window, 1, f"campaign:{number}")
    client.delete("{kiki}:scopes")
    for _ in range(8):
        one(window, ask_spend(1, "campaign:x"))
    assert list(client.scan_iter(match="{kiki}:w:*")) == []
    assert client.exists("{kiki}:grave") == 0


def test_a_busy_window_keeps_a_bounded_number_of_slots(redis, connect, client):
    clock = FakeClock()
    window = connect(redis, single_budget(10**9, 6 * SECOND), clock=clock, local_clock=clock)
    for _ in range(2000):
        clock.now += 7_000
        spend(window, 1)
    assert client.hlen("{kiki}:w:6000000:default\t*") <= 602
    assert client.memory_usage("{kiki}:w:6000000:default\t*", samples=0) < 40_000


# -- the rest of the world ------------------------------------------------------------------------------


def test_a_cluster(redis_cluster, connect):
    rules = policy(budget("all", "*", (100, 60)), budget("each", "campaign:*", (60, 60)))
    address = At.of(redis_cluster, cluster=True)
    window = RedisWindow.connect(rules, address, chain="a", timeout=30)
    try:
        assert spend(window, 60, "campaign:a") is None
        assert spend(window, 1, "campaign:a") is not None
        held = reserve(window, 40, "campaign:b")
        assert spend(window, 1) is not None
        assert commit(window, held.hold, 1).error is None
        assert one(window, keyed(5)).error is None
        assert one(window, keyed(5)).repeated
        assert spent(window, "all") == (66, 0)
    finally:
        window.close()
