"""`BudgetGuard`: budgets that are never exceeded, in a script, without any server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kiki.clock import Clock
from kiki.errors import InvalidInput
from kiki.ledger.master_key import KeySource
from kiki.money import format_micros, parse_micros
from kiki.settings import RedisAddress, redis_address
from kiki.shield.call import (
    Amount,
    Call,
    ScopesGiven,
    check_call,
    commit_call,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
    switch,
)
from kiki.shield.decider import Decider, Work, new_hold_id
from kiki.shield.decision import Decision, Outcome
from kiki.shield.note import Detail, Kept, Note, note_change, parse_note
from kiki.shield.opening import KEYS_MAX, SCOPES_MAX, open_decider, read_policy
from kiki.shield.policy import Policy, parse_currency, parse_span, single_budget
from kiki.shield.simulation import Simulation, simulate
from kiki.shield.window import MeterStatus, OpenHold, Window

if TYPE_CHECKING:
    from kiki.shield.consent_store import ConsentStore


class Hold:
    """Money set aside. Leaving a `with` block without a commit releases it."""

    def __init__(self, guard: BudgetGuard, decision: Decision) -> None:
        self._guard = guard
        outcome = decision.outcome()
        self.id = outcome.fact.hold
        self.amount = outcome.amount
        self.event_id = outcome.event_id
        self.deadline = outcome.fact.deadline
        """Microseconds since the epoch, None without one; then it turns into a spend."""
        self.is_open = True

    def commit(self, amount: Amount) -> Decision:
        """Say what was really spent, at most what was reserved; the rest is free at once.

        After the deadline the whole hold was spent already, and this only writes down what you say.
        """
        decision = self._guard.commit(self.id, amount)
        self.is_open = False
        return decision

    def release(self) -> Decision:
        """Say that nothing was spent; all of it is free at once."""
        decision = self._guard.release(self.id)
        self.is_open = False
        return decision

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            self.release()

    def __repr__(self) -> str:
        return f"Hold({self.id}, {self.amount}, {'open' if self.is_open else 'closed'})"


class BudgetGuard:
    """Decides whether money may be spent, and keeps durable proof of every decision.

    Thread-safe. A call returns once its decision is on disk; calls that come together share one commit.
    Amounts are decimal text, whole numbers or `Decimal`, never floats.
    """

    def __init__(self, decider: Decider, *, purposes: Iterable[str] = ()) -> None:
        """`purposes` of consent are added to those that always are."""
        self.decider = decider
        self._purposes = tuple(purposes)

    @cached_property
    def consents(self) -> ConsentStore:
        """The consents in the same ledger: what is granted or revoked there counts in the next decision."""
        # Loaded where it is used: most scripts only spend.
        from kiki.shield.consent_store import ConsentStore
        from kiki.shield.consent_words import parse_purposes

        return ConsentStore(self.decider, purposes=parse_purposes(self._purposes))

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        *,
        limit: Amount | None = None,
        window: str = "60s",
        policy: Policy | str | Path | None = None,
        redis: str | None = None,
        currency: str = "USD",
        keys: KeySource | None = None,
        clock: Clock | None = None,
        scopes_max: int = SCOPES_MAX,
        keys_max: int = KEYS_MAX,
        ltv_min: Amount = 10,
        ltv_max: Amount = 10_000,
    ) -> Self:
        """A guard over the ledger at `path` (None: in memory, forgotten at the end).

        Either `limit` per `window` over all spends, or a `policy` (a `Policy`, or the path of a YAML file).
        `redis` shares the budgets with other processes; without it this process owns them alone. `keys` says where
        the master key comes from; without it, from `master.key` beside the ledger, made at the first start. Raises
        `LedgerLocked` when another process has the ledger, `PolicyError` when the policy has mistakes,
        `MasterKeyError` when the key is missing or wrong.
        """
        return cls(
            open_decider(
                None if path is None else Path(path),
                _policy(limit, window, policy, currency),
                keys=keys,
                redis=None if redis is None else _redis(redis),
                clock=clock,
                scopes_max=scopes_max,
                keys_max=keys_max,
                ltv_min=parse_micros(ltv_min, zero=True),
                ltv_max=parse_micros(ltv_max),
            )
        )

    # -- the verbs -----------------------------------------------------------------------------------

    def check(
        self,
        amount: Amount | None = None,
        scopes: ScopesGiven = None,
        *,
        ltv: Amount | None = None,
        purpose: str | None = None,
    ) -> Outcome:
        """Whether `amount` (or anything at all) would fit now; takes nothing and writes nothing."""
        return self.decider.look(check_call(amount, scopes, ltv, purpose)).outcome()

    def spend(
        self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None, *, purpose: str | None = None
    ) -> Outcome:
        """Take `amount` from every budget that concerns it, all or nothing; raises `SpendDenied`.

        With the same `key` it is taken once, whatever happened in between: the first answer comes again. A customer
        named in the scopes must have consented to `purpose`, when one is given or a budget asks for one.
        """
        outcome = self.decide(spend_call(amount, scopes, key, purpose)).outcome()
        if not outcome.allowed:
            raise outcome.denied()
        return outcome

    def spend_many(
        self,
        amounts: Iterable[Amount | tuple[Amount, ScopesGiven]],
        scopes: ScopesGiven = None,
        key: str | None = None,
        *,
        purpose: str | None = None,
    ) -> list[Outcome]:
        """Take many amounts in one durable commit: one outcome each, in order, none raised."""
        return self.decide(spend_many_call(amounts, scopes, key, purpose)).outcomes()

    def reserve(
        self,
        amount: Amount,
        scopes: ScopesGiven = None,
        key: str | None = None,
        *,
        seconds: float | None = None,
        purpose: str | None = None,
    ) -> Hold:
        """Set `amount` aside until it is committed or released; raises `SpendDenied`.

        After `seconds` an unresolved hold turns into a spend; None: it stays until it is resolved.
        """
        call = reserve_call(amount, new_hold_id(), hold_span(seconds), scopes, key, purpose)
        decision = self.decide(call)
        outcome = decision.outcome()
        if not outcome.allowed:
            raise outcome.denied()
        return Hold(self, decision)

    def commit(self, hold: str, amount: Amount) -> Decision:
        """Turn a hold into a spend of `amount`, at most what was reserved; the rest is free at once."""
        return self.decide(commit_call(hold, amount))

    def release(self, hold: str) -> Decision:
        """End a hold of which nothing was spent."""
        return self.decide(release_call(hold))

    def record(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> Outcome:
        """Count money that was spent elsewhere, even when it goes over a limit."""
        return self.decide(record_call(amount, scopes, key)).outcome()

    def halt(self, pattern: str = "*", *, note: str = "") -> Decision:
        """Refuse every new spend and reservation that the pattern concerns, until `resume`."""
        decision: Decision = self._work(switch(pattern, on=True, note=note))
        return decision

    def resume(self, pattern: str = "*", *, note: str = "") -> Decision:
        """Take a halt back."""
        decision: Decision = self._work(switch(pattern, on=False, note=note))
        return decision

    def note(
        self,
        event: str,
        scopes: ScopesGiven = None,
        detail: Mapping[str, Detail] | None = None,
        key: str | None = None,
    ) -> Kept:
        """Write down what your own program did, beside the decisions that it rested on; it costs and decides nothing.

        With the same `key` it is written once. Where the scopes name a customer, `detail` is sealed under that
        person's key.
        """
        return self.note_many([parse_note(event, scopes, detail, key)])[0]

    def note_many(self, notes: Sequence[Note]) -> list[Kept]:
        """The same for many, in one durable commit, all or none."""
        kept: list[Kept] = self._work(note_change(notes))
        return kept

    # -- looking -------------------------------------------------------------------------------------

    def status(self, budget: str | None = None, scope: str | None = None, limit: int = 1000) -> list[MeterStatus]:
        """What is spent, held and left in each window, at most `limit` of them."""
        with self._looking() as window:
            return window.status(budget, scope, limit)

    def halts(self) -> list[str]:
        """The scope patterns that are halted."""
        with self._looking() as window:
            return window.halts()

    def holds(self) -> list[OpenHold]:
        """Every open hold."""
        with self._looking() as window:
            return list(window.holds())

    def simulate(
        self,
        policy: Policy | str | Path,
        since: datetime | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Simulation:
        """What another policy would have decided about everything asked since then, from the ledger."""
        chosen = _policy(None, "", policy, self.policy.currency)
        return simulate(self.decider.all_chains(), chosen, since, progress)

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.decider.books.policy

    def use(self, policy: Policy | str | Path, *, actor: str = "") -> None:
        """Decide by another policy from now on; raises `PolicyError` and changes nothing when it has mistakes."""
        self.decider.use(_policy(None, "", policy, self.policy.currency), actor)

    # -- going down ----------------------------------------------------------------------------------

    def decide(self, call: Call) -> Decision:
        """The durable decision about a call."""
        decision: Decision = self._work(call)
        return decision

    def _work(self, work: Work) -> Any:
        return self.decider.group.submit(work).result()

    @contextmanager
    def _looking(self) -> Iterator[Window]:
        books = self.decider.books
        with books.looking:
            yield books.window

    def close(self) -> None:
        """Finish what waits and give the ledger free."""
        self.decider.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        budgets = ", ".join(
            f"{budget.name} {format_micros(limit.micros)}" for budget in self.policy.budgets for limit in budget.limits
        )
        return f"BudgetGuard({budgets})"


def hold_span(seconds: object) -> int | None:
    """A span in seconds as microseconds; raises `InvalidInput`."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
        raise InvalidInput("seconds of a reservation must be a positive number, or nothing for no deadline")
    return round(seconds * 1_000_000)


def _policy(limit: Amount | None, window: str, policy: Policy | str | Path | None, currency: str) -> Policy:
    if (limit is None) == (policy is None):
        raise InvalidInput("give either limit= (with window=) or policy=, the path of a policy file")
    if limit is not None:
        return single_budget(parse_micros(limit), parse_span(window), parse_currency(currency))
    return policy if isinstance(policy, Policy) else read_policy(Path(str(policy)), parse_currency(currency))


def _redis(text: str) -> RedisAddress:
    try:
        return redis_address(text)
    except ValueError as error:
        raise InvalidInput(f"redis: {error}") from None
