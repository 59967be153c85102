"""The end of retention: entries leave, and what still holds is said again before they do.

A consent that was given eight years ago may still be in force, and the policy too. So that every projection can
still be made from the entries that are left, whatever an old entry says that still holds is written down once
more, and then the old entries go. The tree keeps their hashes: every checkpoint and every proof stays valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from kiki.ledger.ledger import first_recorded_since, read_entries
from kiki.ledger.merkle import TILE_WIDTH
from kiki.ledger.store import Write
from kiki.shield import consent
from kiki.shield.books import key_retention
from kiki.shield.change import Change, Turn
from kiki.shield.decider import Decider
from kiki.shield.fact import ConsentChanged, Halted, PolicyUsed, Pruned, decode_fact
from kiki.shield.legal_hold import LEGAL_HOLD
from kiki.shield.projections import HALTS, HOLDS, LAPSED, POLICY
from kiki.shield.replay import reach
from kiki.shield.subject_request import REQUEST, REQUEST_KEY, SubjectRequest, read_request

_CARRIED_AT_ONCE = 1000
_PRUNED_AT_ONCE = 16_384
_STILL = "still in force when older entries were pruned"


def prune(decider: Decider, before: int, retention_days: int, actor: str = "") -> int:
    """Remove the entries of this chain below `before`, whose retention is over; the lowest sequence that is left.

    Entries that deciding still needs stay whatever their age: those of the longest window, of remembered keys and
    of open holds. So do those of the tile that `before` lies in. May be repeated after a crash anywhere.
    """
    ledger, now = decider.ledger, decider.clock()
    before = min(before, _needed_from(decider, now))
    # The tile of the tree that is not full yet is made again from its entries at the next start.
    before -= before % TILE_WIDTH
    first = ledger.store.first_seq()
    if before <= first:
        return first
    states = _old_consents(decider, before)
    while keys := list(islice(states, _CARRIED_AT_ONCE)):
        _submit(decider, partial(_carry_consents, keys=keys, before=before))
    for key, request in _requests_of(decider, before):
        _submit(decider, partial(_drop_request, key=key, request=request))
    _submit(decider, lambda turn: _carry_the_rest(turn, Pruned(turn.now, before, retention_days, actor)))
    for end in range(first + _PRUNED_AT_ONCE, before + _PRUNED_AT_ONCE, _PRUNED_AT_ONCE):
        # A piece at a time, so that deciding goes on in between.
        if not decider.group.exclusively(partial(_remove, decider, min(end, before))):
            return ledger.store.first_seq()
    oldest = _oldest(decider, now)
    decider.group.exclusively(lambda: decider.subjects.prune(oldest))
    return before


def _oldest(decider: Decider, now: int) -> int:
    """When the oldest entry of any chain was recorded: what seals it may be in use in all of them."""
    first = (next(iter(read_entries(reader, reader.first_seq())), None) for reader in decider.all_chains())
    return min((entry.recorded_at for entry in first if entry is not None), default=now)


def _remove(decider: Decider, before: int) -> bool:
    """Remove a piece, unless a legal hold came meanwhile: whoever was told that one is on relies on it."""
    store = decider.ledger.store
    with store.shared_turn():
        if next(iter(store.scan(LEGAL_HOLD)), None) is not None:
            return False
        store.prune(before)
    return True


def _needed_from(decider: Decider, now: int) -> int:
    store, policy = decider.ledger.store, decider.books.policy
    counted = first_recorded_since(store, now - max(reach(policy), 2 * key_retention(policy)))
    lapsed = store.scan(LAPSED, (now - reach(policy)).to_bytes(8, "big"))
    held = (int.from_bytes(place, "big") for _, place in (*store.scan(HOLDS), *lapsed))
    open_requests = (_first_event(decider, request) for _, request in _requests(decider) if request.state.is_open)
    return min([counted, *held, *open_requests])


def _requests(decider: Decider) -> Iterator[tuple[bytes, SubjectRequest]]:
    for key, value in decider.ledger.store.scan(REQUEST):
        request = read_request(value)
        if request is not None:
            yield key, request


def _first_event(decider: Decider, request: SubjectRequest) -> int:
    """The lowest entry of this chain that speaks of a request; very high when none does."""
    own = (event.seq for event in request.events if event.chain == decider.ledger.chain)
    return min(own, default=2**62)


def _requests_of(decider: Decider, before: int) -> list[tuple[bytes, SubjectRequest]]:
    """Closed requests that cannot be told without entries that are about to leave."""
    return [(key, request) for key, request in _requests(decider) if _first_event(decider, request) < before]


def _old_consents(decider: Decider, before: int) -> Iterator[bytes]:
    """The keys of states that this chain wrote below `before`."""
    for key, value in decider.ledger.store.scan(consent.CONSENT):
        state = consent.read_state(value)
        if state is not None and state.chain == decider.ledger.chain and state.seq < before:
            yield key


def _submit(decider: Decider, act: Callable[[Turn], None]) -> None:
    decider.group.submit(Change(act)).result()


def _carry_consents(turn: Turn, *, keys: list[bytes], before: int) -> None:
    for key in keys:
        # Anew, because the person may have said something else meanwhile.
        state = consent.read_state(turn.get(consent.CONSENT, key))
        if state is None or state.chain != turn.chain or state.seq >= before:
            continue
        if turn.subjects.person_of(consent.subject_and_purpose(key)[0]) is None:
            turn.drop(consent.CONSENT, key)  # erased: nobody can ask about it any more
            continue
        for entry in read_entries(turn.reader, state.seq, state.seq):
            fact = decode_fact(entry)
            if isinstance(fact, ConsentChanged):
                carried = consent.carried(fact, turn.now)
                turn.add(carried, consent.writes_of(carried, turn.chain, turn.next_seq), entry.sealed)


def _drop_request(turn: Turn, *, key: bytes, request: SubjectRequest) -> None:
    turn.drop(REQUEST, key)
    if request.key:
        turn.drop(REQUEST_KEY, request.key)


def _carry_the_rest(turn: Turn, pruned: Pruned) -> None:
    policy = turn.get(POLICY, b"")
    if policy is not None:
        turn.add(PolicyUsed(turn.now, policy), [Write(POLICY, b"", policy)])
    for pattern, _ in turn.reader.scan(HALTS):
        turn.add(Halted(turn.now, pattern.decode(), on=True, note=_STILL), [Write(HALTS, pattern, b"1")])
    for key, place in turn.reader.scan(LAPSED):
        if int.from_bytes(place, "big") < pruned.before:
            turn.drop(LAPSED, key)  # its deadline is out of every window, or its entry would have stayed
    turn.add(pruned)
