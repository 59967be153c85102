"""What became of uploaded values: the same promises in SQLite and PostgreSQL, compared with a plain model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.errors import Conflict
from kiki.flow.run_store import RunStore
from kiki.flow.value_log import Kept, Untold, ValueLog, digest
from kiki.outbound.outcome import Fate

PLACE, OTHER = digest("here"), digest("there")
ONE, TWO, THREE = (digest(name) for name in ("1", "2", "3"))
SAID = digest("said")


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "flow.db") if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def log(where: str) -> Iterator[ValueLog]:
    ticks = count(1)
    with closing(RunStore.open(where, lambda: next(ticks))) as store:
        yield store.values


def test_what_is_on_its_way_may_be_there(log: ValueLog) -> None:
    assert {} == log.known(PLACE, [ONE])
    log.send(PLACE, {ONE: SAID, TWO: SAID}, "targeting")
    assert {ONE: Kept(Fate.UNKNOWN, SAID, 1), TWO: Kept(Fate.UNKNOWN, SAID, 1)} == log.known(PLACE, [ONE, TWO, THREE])
    assert {} == log.known(OTHER, [ONE, TWO])
    assert [] == log.untold(PLACE)


def test_a_fate_is_kept_until_the_ledger_has_it(log: ValueLog) -> None:
    log.send(PLACE, {ONE: SAID, TWO: SAID}, "targeting")
    log.settle(PLACE, {ONE: Fate.DONE, TWO: Fate.REFUSED})
    rows = log.untold(PLACE)
    assert {Untold(ONE, "targeting", Fate.DONE, 2), Untold(TWO, "targeting", Fate.REFUSED, 2)} == {*rows}
    assert rows == sorted(rows)
    log.told(PLACE, [ONE])
    assert [TWO] == [row.order for row in log.untold(PLACE)]


def test_the_first_time_is_that_of_what_may_have_had_an_effect(log: ValueLog) -> None:
    log.send(PLACE, {ONE: SAID, TWO: SAID}, "targeting")
    log.settle(PLACE, {ONE: Fate.UNKNOWN, TWO: Fate.REFUSED})
    assert {ONE} == log.send(PLACE, {ONE: SAID, TWO: THREE}, "targeting")
    assert {ONE: Kept(Fate.UNKNOWN, SAID, 1), TWO: Kept(Fate.UNKNOWN, THREE, 3)} == log.known(PLACE, [ONE, TWO])


def test_one_upload_to_a_place_at_a_time_and_a_killed_one_leaves_what_is_unknown(log: ValueLog, where: str) -> None:
    log.send(PLACE, {ONE: SAID}, "targeting")
    with log.alone(PLACE):
        assert [(ONE, Fate.UNKNOWN)] == [(row.order, row.fate) for row in log.untold(PLACE)]
        with closing(RunStore.open(where)) as second:
            with pytest.raises(Conflict, match="being uploaded just now"), second.values.alone(PLACE):
                pass
            with second.values.alone(OTHER):
                pass
    with log.alone(PLACE):
        pass


def test_many_at_once(log: ValueLog) -> None:
    many = {digest(str(each)): SAID for each in range(1201)}
    log.send(PLACE, many, "targeting")
    log.settle(PLACE, dict.fromkeys(many, Fate.DONE))
    assert len(many) == len(log.known(PLACE, many)) == len(log.untold(PLACE))
    log.told(PLACE, [*many])
    assert [] == log.untold(PLACE)


PLACES = count()
STEPS = st.lists(
    st.tuples(st.just("send"), st.sets(st.sampled_from([ONE, TWO, THREE]), min_size=1))
    | st.tuples(st.sampled_from([*Fate]), st.sets(st.sampled_from([ONE, TWO, THREE]), min_size=1))
    | st.just(("told", frozenset())),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(steps=STEPS)
def test_it_agrees_with_a_model(log: ValueLog, steps: list[tuple[str, set[bytes]]]) -> None:
    place = digest(str(next(PLACES)))
    fates: dict[bytes, Fate] = {}
    untold: set[bytes] = set()
    for what, orders in steps:
        if what == "send":
            log.send(place, dict.fromkeys(orders, SAID), "targeting")
            fates |= dict.fromkeys(orders, Fate.UNKNOWN)
            untold -= orders
        elif what == "told":
            log.told(place, [row.order for row in log.untold(place)])
            untold.clear()
        else:
            known = orders & fates.keys()
            log.settle(place, dict.fromkeys(known, Fate(what)))
            fates |= dict.fromkeys(known, Fate(what))
            untold |= known
        assert fates == {order: kept.fate for order, kept in log.known(place, [ONE, TWO, THREE]).items()}
        assert untold == {row.order for row in log.untold(place)}
        log.settle(place, {})
        log.told(place, [])
