"""What cannot be read as a call raises a sentence that says what is accepted, before anything is touched."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kiki.errors import InvalidInput, InvalidKey, InvalidMoney, InvalidScope
from kiki.shield.call import (
    BATCH_MAX,
    check_call,
    commit_call,
    parse_hold,
    parse_key,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
    switch,
)
from kiki.shield.window import Verb

HOLD = "0123456789abcdef" * 2
DAY = 24 * 3600 * 1_000_000

NOT_MONEY = [
    *("", " ", "0", "0.00", "-1", "+1", "1e3", "1e400", "NaN", "nan", "inf", "Infinity", "-Inf", "1,000", "1_000"),
    *("0.0000001", "1.1234567", ".5", "5.", "1.2.3", "0x10", "abc", "１２", "١٢", "1 ", "\n1", "1\x00", "$5"),
    *("9223372036854.775808", "9223372036855", "99999999999999", "1" * 5000),
    *(
        0,
        -1,
        9_223_372_036_855,
        10**30,
        True,
        False,
        None,
        1.0,
        0.1,
        float("nan"),
        float("inf"),
        b"1",
        [],
        {},
        object(),
    ),
    *(Decimal(0), Decimal(-1), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1E-7")),
    *(Decimal("1E+999999"), Decimal("9223372036854.775808")),
]


@pytest.mark.parametrize("amount", NOT_MONEY, ids=lambda amount: repr(amount)[:30])
def test_what_is_not_money_is_refused_by_every_verb(amount):
    """Each verb refuses it alike, as `InvalidMoney` that says what is accepted."""
    for make in (
        spend_call,
        record_call,
        lambda given: spend_many_call([given]),
        lambda given: reserve_call(given, HOLD, None),
    ):
        with pytest.raises(InvalidMoney, match="write a positive decimal number"):
            make(amount)
    if amount is not None:
        with pytest.raises(InvalidMoney):
            check_call(amount)


def test_a_number_of_thousands_of_digits_is_refused_as_money():
    """An int that Python does not even print is too large, and says so."""
    with pytest.raises(InvalidMoney, match="too large"):
        spend_call(10**5000)


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        *[("100", 100_000_000), ("0.000001", 1), ("0.1", 100_000), ("00.10", 100_000), ("12.340000", 12_340_000)],
        *[(7, 7_000_000), (Decimal("0.30"), 300_000), (Decimal("1E+2"), 100_000_000)],
        *[("9223372036854.775807", 2**63 - 1), (Decimal("9223372036854.775807"), 2**63 - 1)],
    ],
)
def test_money_is_read_exactly(amount, micros):
    """Text, whole numbers and decimals give micros without rounding."""
    assert [micros] == spend_call(amount).amounts


@pytest.mark.parametrize("key", ["", "x" * 256, "x" * 65_536, "a\nb", "a\x00", "\ud800", 5, b"key", ["k"], True, 1.5])
def test_what_is_not_a_key_is_refused(key):
    """Empty, long, unprintable or not text: `InvalidKey`, and a long one is not echoed."""
    for make in (
        lambda given: spend_call("1", key=given),
        lambda given: spend_many_call(["1"], key=given),
        lambda given: record_call("1", key=given),
        lambda given: reserve_call("1", HOLD, None, key=given),
    ):
        with pytest.raises(InvalidKey, match="1 to 255 printable") as refused:
            make(key)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize("key", ["k", "x" * 255, "Ünïcode – ключ", "a b"])
def test_keys_are_kept_as_given(key):
    """Any printable text of 1 to 255 characters is a key; None is none."""
    assert key == spend_call("1", key=key).key
    assert parse_key(None) == ""


@pytest.mark.parametrize(
    "scopes",
    [
        *["platform:meta", ["platform"], ["Platform:meta"], ["9:x"], [":x"], ["platform:"], ["platform:*"], ["*"]],
        *[{"platform": ""}, {"platform": "x" * 129}, {"platform": "a\nb"}, {"platform": "\ud800"}, {"platform": 5}],
        *[{5: "x"}, {"": "x"}, {"k" * 33: "x"}, {"plat form": "x"}, ["a:1", "a:2"], [5], [None], [b"a:b"]],
        {f"k{number}": "x" for number in range(9)},
    ],
    ids=lambda scopes: repr(scopes)[:30],
)
def test_what_is_not_a_scope_is_refused(scopes):
    """Every wrong form raises `InvalidScope` with what is accepted."""
    for make in (spend_call, record_call, check_call, lambda amount, given: spend_many_call([(amount, given)])):
        with pytest.raises(InvalidScope, match="kind:value"):
            make("1", scopes)


@pytest.mark.parametrize("scopes", [5, 1.5, object()], ids=repr)
def test_scopes_of_another_type_are_refused_as_scopes(scopes):
    """Something that is neither a mapping nor a list is `InvalidScope` too."""
    with pytest.raises(InvalidScope):
        spend_call("1", scopes)


def test_scopes_are_canonical():
    """Sorted and distinct, whatever form they came in."""
    assert spend_call("1", {"platform": "meta", "campaign": "x:y"}).scopes == (("campaign:x:y", "platform:meta"),)
    assert spend_call("1", ["platform:meta", "campaign:x:y"]).scopes == (("campaign:x:y", "platform:meta"),)
    assert spend_call("1", ["a:1", "a:1"]).scopes == (("a:1",),)
    assert ((),) == spend_call("1", {}).scopes == spend_call("1", []).scopes == spend_call("1").scopes


def test_a_batch_has_scopes_of_its_own_or_shared():
    """An item may bring its own; the others have the batch's."""
    call = spend_many_call(["1", ("2", {"a": "1"}), "3"], {"b": "2"})
    assert call.scopes == (("b:2",), ("a:1",), ("b:2",))
    assert spend_many_call(["1", "2"], {"b": "2"}).scopes == (("b:2",),)
    assert call.amounts == [1_000_000, 2_000_000, 3_000_000]


def test_a_bad_item_of_a_batch_is_named():
    """The message says which item it was, and keeps the kind of the error."""
    with pytest.raises(InvalidMoney, match="item 2: "):
        spend_many_call(["1", "2", "-3"])
    with pytest.raises(InvalidScope, match="item 1: "):
        spend_many_call(["1", ("2", ["nonsense"])])
    with pytest.raises(InvalidInput, match="item 0: "):
        spend_many_call([("1",)])


@pytest.mark.parametrize("amounts", [[], ["1"] * (BATCH_MAX + 1)], ids=["none", "too many"])
def test_a_batch_is_neither_empty_nor_endless(amounts):
    """The message says how many are accepted."""
    with pytest.raises(InvalidInput, match=f"send 1 to {BATCH_MAX}"):
        spend_many_call(amounts)


def test_a_text_is_not_a_batch():
    """`spend_many("12")` is a mistake, not two spends of 1 and 2."""
    with pytest.raises(InvalidInput):
        spend_many_call("12")


def test_the_largest_batch_is_accepted():
    """Exactly `BATCH_MAX` amounts are one call."""
    assert len(spend_many_call(["1"] * BATCH_MAX).amounts) == BATCH_MAX


@pytest.mark.parametrize("hold", ["", "x" * 32, "A" * 32, "a" * 31, "a" * 33, "１" * 32, None, 5, b"a" * 32])
def test_what_is_not_a_hold_is_refused(hold):
    """A reservation is named by the 32 hexadecimal digits it was answered with."""
    for make in (lambda given: commit_call(given, "1"), release_call, parse_hold):
        with pytest.raises(InvalidInput, match="32 hexadecimal"):
            make(hold)


@pytest.mark.parametrize("span", [0, -1, 366 * DAY + 1])
def test_a_hold_lasts_a_sensible_time(span):
    """Longer than nothing and at most 366 days."""
    with pytest.raises(InvalidInput, match="366 days"):
        reserve_call("1", HOLD, span)
    assert reserve_call("1", HOLD, 366 * DAY).hold_span == 366 * DAY


def test_a_commit_may_be_of_nothing():
    """Zero is a legal outcome of a reservation, and of nothing else."""
    assert commit_call(HOLD, "0").amounts == [0]
    assert commit_call(HOLD, 0).amounts == [0]
    for amount in ("-1", "-0", 0.0, None):
        with pytest.raises(InvalidMoney):
            commit_call(HOLD, amount)
    assert (release_call(HOLD).verb, release_call(HOLD).amounts) == (Verb.RELEASE, [0])


def test_a_check_without_an_amount_asks_for_the_smallest():
    """Whether anything would fit is whether one micro would."""
    assert check_call().amounts == [1]
    assert check_call(ltv="0").ltv == 0
    for ltv in ("-1", "nan", 600.0):
        with pytest.raises(InvalidMoney):
            check_call(ltv=ltv)


@pytest.mark.parametrize("pattern", ["", "platform", "Platform:*", "*:*", "**", "platform:", "a:b\n", None, 5])
def test_what_is_not_a_pattern_is_refused(pattern):
    """The kill switch takes `*`, `kind:value` or `kind:*`."""
    with pytest.raises(InvalidScope, match="scope pattern"):
        switch(pattern, on=True)


def test_a_note_is_short_and_printable():
    """What an operator notes is at most a line."""
    assert switch("*", on=True, note="x" * 255).note == "x" * 255
    for note in ("x" * 256, "a\nb"):
        with pytest.raises(InvalidInput, match="a note"):
            switch("*", on=True, note=note)
