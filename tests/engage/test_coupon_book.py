from __future__ import annotations

import threading

import pytest

from kiki.engage.coupon_book import ALPHABET, CODE_CHARS, CodeState, CouponBook, normal
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.errors import CodeDenied, InvalidInput, NotFound


@pytest.fixture
def book(where, clock):
    ledger = LoyaltyLedger.open(where, clock=clock)
    yield CouponBook(ledger)
    ledger.close()


def reason(call) -> str:
    with pytest.raises(CodeDenied) as denied:
        call()
    return denied.value.reason


def test_a_code_goes_from_free_over_locked_to_redeemed_and_back(book):
    [code] = book.issue("winback", 1)
    assert book.validate(code).state is CodeState.FREE
    assert book.lock(code, key="order-1").state is CodeState.LOCKED
    assert book.lock(code, key="order-1").state is CodeState.LOCKED
    assert reason(lambda: book.lock(code, key="order-2")) == "locked"
    assert reason(lambda: book.validate(code)) == "locked"
    assert book.redeem(code, key="order-1", order="1001").order == "1001"
    assert book.redeem(code, key="order-1", order="1001").state is CodeState.REDEEMED
    assert reason(lambda: book.redeem(code, key="order-2")) == "redeemed"
    assert book.roll_back(code, key="order-2") is False
    assert book.roll_back(code, key="order-1") is True
    assert book.roll_back(code, key="order-1") is False
    assert book.validate(code) == (code, "winback", CodeState.FREE, None, 0, "")


def test_a_lock_ends_by_itself(book, clock):
    [code] = book.issue("winback", 1)
    book.lock(code, key="order-1", lasts=1000)
    clock.advance(1000)
    assert book.validate(code).state is CodeState.FREE
    assert book.lock(code, key="order-2").state is CodeState.LOCKED
    assert reason(lambda: book.redeem(code, key="order-1")) == "locked"
    assert book.unlock(code, key="order-1") is False
    assert book.unlock(code, key="order-2") is True


def test_a_code_is_read_as_people_type_it(book):
    [code] = book.issue("winback", 1)
    assert book.validate(f" {code[:4].lower()}-{code[4:8]} {code[8:]}").code == code
    for wrong in ("", "x", "0" * CODE_CHARS, "I" * CODE_CHARS, code + "2", "é" * CODE_CHARS):
        assert reason(lambda wrong=wrong: book.validate(wrong)) == "unknown"
    assert reason(lambda: book.validate("2" * CODE_CHARS)) == "unknown"


def test_a_customer_has_one_code_of_a_pool_and_nobody_else_has_it(book):
    book.issue("winback", 2)
    assert book.give("winback", "ada") == (code := book.give("winback", "ada"))
    assert book.give("winback", "bob") != code
    with pytest.raises(NotFound, match="no code left"):
        book.give("winback", "eve")
    assert reason(lambda: book.lock(code, key="k", customer="bob")) == "anothers"
    assert reason(lambda: book.redeem(code, key="k")) == "anothers"
    assert book.redeem(code, key="k", customer="ada").state is CodeState.REDEEMED


def test_codes_end_and_can_be_taken_out_of_use(book, clock):
    first, second = book.issue("spring", 2, ends_at=clock.now + 1000)
    assert book.void(first) is True
    assert book.void(first) is False
    assert reason(lambda: book.validate(first)) == "void"
    clock.advance(1000)
    assert reason(lambda: book.lock(second, key="k")) == "ended"
    assert book.counts() == {"spring": {"free": 1, "void": 1}}
    with pytest.raises(InvalidInput, match="later end"):
        book.issue("spring", 1, ends_at=clock.now)


def test_codes_cannot_be_guessed_nor_confused(book):
    codes = book.issue("winback", 2500)
    assert len(set(codes)) == 2500
    assert set("".join(codes)) == set(ALPHABET)
    assert all(normal(code) == code for code in codes)


def test_of_fifty_who_redeem_at_once_one_does(book):
    [code] = book.issue("winback", 1)
    won = []

    def redeem(number: int) -> None:
        try:
            book.redeem(code, key=f"order-{number}")
            won.append(number)
        except CodeDenied:
            pass

    threads = [threading.Thread(target=redeem, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_of_fifty_who_ask_at_once_everybody_gets_another_code(book):
    book.issue("winback", 30)
    given: list[tuple[str, str]] = []
    none = []

    def give(number: int) -> None:
        try:
            given.append((f"customer-{number // 2}", book.give("winback", f"customer-{number // 2}")))
        except NotFound:
            none.append(number)

    threads = [threading.Thread(target=give, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert none == []
    assert len(set(given)) == len({code for _, code in given}) == 25


@pytest.mark.parametrize(("pool", "count"), [("", 1), ("Big", 1), ("a b", 1), ("a", 0), ("a", 10**7), ("a", 1.5)])
def test_what_cannot_be_issued_is_refused(pool: str, count: int):
    with LoyaltyLedger.open(None) as ledger, pytest.raises(InvalidInput):
        CouponBook(ledger).issue(pool, count)


def test_a_lock_needs_a_key():
    with LoyaltyLedger.open(None) as ledger:
        book = CouponBook(ledger)
        [code] = book.issue("a", 1)
        with pytest.raises(InvalidInput, match="1 to 255 printable"):
            book.lock(code, key="")
