"""The doubles that users build their tests on."""

import pytest

from kiki import SpendDenied
from kiki.shield.shield_client import ShieldClient
from kiki.testing import FakeClock, memory_guard, running_shield


def test_a_guard_on_a_fake_clock_frees_its_window_when_the_clock_is_moved() -> None:
    """Time passes only when the test says so."""
    clock = FakeClock()
    with memory_guard("100", window="60s", clock=clock) as guard:
        guard.spend("100")
        clock.advance(59)
        assert not guard.check("1").allowed
        clock.advance(2)
        assert guard.check("100").allowed


def test_a_fake_clock_refuses_to_run_backwards() -> None:
    """A guard relies on that."""
    with pytest.raises(ValueError, match="backwards"):
        FakeClock().advance(-1)


def test_a_running_shield_is_asked_over_http() -> None:
    """A client meets the real service, and the test sees the guard behind it."""
    with running_shield("100") as shield, ShieldClient(shield.url) as client:
        assert client.spend("80").allowed
        with pytest.raises(SpendDenied) as refused:
            client.spend("30")
        assert refused.value.remaining == "20.00"
        assert [status.spent for status in shield.guard.status()] == [80_000_000]


def test_a_running_shield_says_why_it_cannot_start() -> None:
    """A mistake in its arguments reaches the test, not a thread nobody looks at."""
    with pytest.raises(ValueError, match="limit"), running_shield():
        pass
