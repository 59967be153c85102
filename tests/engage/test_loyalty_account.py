from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.engage.loyalty_account import POINTS_MAX, Account, Balance, Kind
from kiki.errors import Conflict, InvalidInput, NotFound, PointsShort
from tests.engage.points_model import Picture

few = st.integers(1, 5)
moves = st.one_of(
    st.tuples(st.just("earn"), few, st.integers(0, 3), st.one_of(st.none(), st.integers(1, 6))),
    st.tuples(st.just("spend"), few),
    st.tuples(st.just("hold"), few, st.integers(1, 5)),
    st.tuples(st.sampled_from(["commit", "release"]), st.integers(0, 9)),
    st.tuples(st.just("refund"), st.integers(0, 19), st.one_of(st.none(), few), st.integers(0, 4)),
    st.tuples(st.just("wait"), st.integers(1, 7)),
)


def one_of(account: Account, number: int, kinds: set[Kind]) -> int:
    """The place of one of the entries of these kinds, or one where nothing is."""
    found = [entry.about or entry.place for entry in account.entries if entry.kind in kinds]
    return found[number % len(found)] if found else 99


@settings(max_examples=300)
@given(st.lists(moves, min_size=8, max_size=25))
def test_an_account_is_what_counting_points_one_by_one_gives(steps: list[tuple]):
    account, picture = Account(), Picture()
    for what, *rest in steps:
        before = account.balance().available
        if what == "wait":
            for _ in range(rest[0]):
                picture.tick()
        elif what == "earn":
            points, wait, life = rest
            ends = None if life is None else picture.now + wait + life
            account.earn(points, picture.now, opens_at=picture.now + wait, ends_at=ends)
            picture.earn(points, wait, life)
        elif what in {"spend", "hold"}:
            until = picture.now + rest[1] if what == "hold" else None
            if picture.spend(rest[0], until):
                account.spend(rest[0], picture.now, hold_until=until)
            else:
                with pytest.raises(PointsShort) as short:
                    account.spend(rest[0], picture.now, hold_until=until)
                assert short.value.available == picture.available
            assert account.balance().available >= min(0, before)
        elif what in {"commit", "release"}:
            rest[0] = one_of(account, rest[0], {Kind.HOLD})
            with contextlib.suppress(Conflict, NotFound):
                getattr(account, what)(rest[0], picture.now)
                if what == "commit":
                    del picture.holds[rest[0]]
                    picture.enter(0)
                else:
                    picture.back(rest[0], picture.takes[rest[0]][0], grace=0, release=True)
        else:
            place, points, grace = rest
            place = one_of(account, place, {Kind.EARN, Kind.SPEND, Kind.COMMIT})
            with contextlib.suppress(Conflict, NotFound):
                account.refund(place, picture.now, points=points, grace=grace)
                if place in picture.earned:
                    whole, returned = picture.earned[place]
                    picture.take_back(place, whole - returned if points is None else points)
                else:
                    whole, returned = picture.takes[place]
                    picture.back(place, whole - returned if points is None else points, grace=grace)
        account.advance(picture.now)
        found = account.balance()
        assert (found.available, found.pending, found.held) == (picture.available, picture.pending, picture.held)
        summed = sum(entry.points for entry in account.entries)
        assert summed == picture.total == sum(lot.left for lot in account.lots.values()) - account.debt
        assert [entry.place for entry in account.entries] == list(range(1, account.last_place + 1))
        assert account.last_place == picture.place


@settings(max_examples=100)
@given(
    st.lists(st.tuples(few, st.integers(0, 3), st.integers(1, 6)), max_size=8), st.integers(0, 30), st.integers(0, 30)
)
def test_it_does_not_matter_when_somebody_looks(lots: list[tuple[int, int, int]], first: int, second: int):
    def made() -> Account:
        account = Account(debt=7)
        for points, wait, life in lots:
            account.earn(points, 0, opens_at=wait, ends_at=wait + life)
        return account

    once, twice = made(), made()
    last = max(first, second)
    once.advance(last)
    twice.advance(min(first, second))
    twice.advance(last)
    assert once.balance() == twice.balance()
    assert once.entries == twice.entries


def test_what_ends_first_is_spent_first():
    account = Account()
    account.earn(10, 0, ends_at=100)
    account.earn(10, 1, ends_at=50)
    account.earn(10, 2)
    account.spend(15, 3)
    assert [account.lots[place].left for place in (1, 2, 3)] == [5, 0, 10]
    assert account.balance() == Balance(15, 0, 0, (100, 5))


def test_a_return_takes_the_points_back_though_they_are_spent():
    account = Account()
    account.earn(100, 0, order="A")
    account.spend(80, 1)
    assert account.refund(1, 2).points == -100
    assert account.balance().available == -80
    account.earn(30, 3)
    account.advance(4)
    assert account.balance().available == -50
    with pytest.raises(PointsShort) as short:
        account.spend(1, 5)
    assert short.value.available == -50
    assert "0 can be spent" in str(short.value)


def test_a_return_takes_other_points_before_it_makes_a_debt():
    account = Account()
    account.earn(100, 0, ends_at=10)
    account.earn(50, 0, ends_at=20)
    account.spend(100, 1)
    account.refund(1, 2)
    assert (account.debt, account.balance().available) == (50, -50)


def test_points_that_ended_are_not_taken_back_a_second_time():
    account = Account()
    account.earn(100, 0, ends_at=10)
    account.spend(30, 1)
    assert account.refund(1, 20).points == -30
    assert account.balance().available == -30


def test_nothing_is_reversed_twice_nor_more_than_it_was():
    account = Account()
    account.earn(10, 0)
    account.refund(1, 1, points=4)
    with pytest.raises(Conflict, match="6 points are left"):
        account.refund(1, 2, points=7)
    account.refund(1, 3)
    with pytest.raises(Conflict, match="reversed already"):
        account.refund(1, 4)


def test_a_spend_that_is_returned_comes_back_and_lives_on_for_a_while():
    account = Account()
    account.earn(10, 0, ends_at=10)
    account.spend(8, 1)
    assert account.refund(2, 20, grace=5).points == 8
    assert account.balance() == Balance(8, 0, 0, (25, 8))
    with pytest.raises(Conflict):
        account.refund(account.last_place, 21)


def test_a_hold_is_committed_or_released_or_runs_out():
    account = Account()
    account.earn(30, 0)
    for until in (10, 10, 5):
        account.spend(10, 1, hold_until=until)
    assert account.balance() == Balance(0, 0, 30, None)
    account.commit(2, 2)
    account.release(3, 3)
    account.advance(6)
    assert account.balance() == Balance(20, 0, 0, None)
    for place, how in ((2, "committed"), (3, "released"), (4, "ran out")):
        with pytest.raises(Conflict, match=how):
            account.commit(place, 7)
    assert account.entries[-1].at == 5
    assert account.refund(2, 8).points == 10


def test_a_clock_that_goes_back_takes_nothing_back():
    account = Account()
    account.earn(10, 100, ends_at=200)
    account.advance(300)
    account.earn(5, 50)
    assert [entry.at for entry in account.entries] == [100, 200, 300]


@pytest.mark.parametrize("points", [0, -1, POINTS_MAX + 1, 1.5, "7", True, None])
def test_what_is_no_number_of_points_is_refused(points: object):
    with pytest.raises(InvalidInput, match="whole number"):
        Account().earn(points, 0)


def test_what_cannot_be_reversed_is_said():
    account = Account()
    account.earn(10, 0)
    account.spend(5, 0, hold_until=9)
    with pytest.raises(Conflict, match="release it"):
        account.refund(2, 1)
    with pytest.raises(NotFound, match="no earning and no spend"):
        account.refund(7, 1)
    with pytest.raises(NotFound, match="no hold"):
        account.commit(1, 1)


def test_closing_leaves_nothing_and_keeps_the_sum():
    account = Account()
    account.earn(10, 0)
    account.earn(10, 0, opens_at=50)
    account.spend(4, 1, hold_until=20)
    assert account.close(2) == 16
    assert sum(entry.points for entry in account.entries) == 0
    assert account.entries[-1].kind is Kind.CLOSE
