"""The registry of systems: every one of them, in an order that loses nobody's data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kiki.shield.subject_data import Registry
from tests.shield.privacy_doubles import Shop


@given(st.data())
def test_dependents_come_before_what_they_need_and_the_keys_last(data):
    count = data.draw(st.integers(0, 8))
    names = [f"s{number}" for number in range(count)]
    # Only later ones may be needed, so that nobody waits for each other.
    needs = {
        name: data.draw(st.lists(st.sampled_from(names[at + 1 :]), unique=True)) if names[at + 1 :] else []
        for at, name in enumerate(names)
    }
    systems = data.draw(st.permutations([Shop(name, depends_on=needs[name]) for name in names]))
    registry = Registry(systems, Shop("keys"))
    order = [system.name for system in registry.all]
    assert ({*names, "keys"}, "keys") == (set(order), order[-1])
    for name, needed in needs.items():
        assert all(order.index(name) < order.index(other) for other in needed)
        assert registry.dependents_of(name) == {other for other in names if name in needs[other]}
    assert registry.dependents_of("keys") == set(names)
