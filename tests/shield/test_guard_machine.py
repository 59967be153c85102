"""A guard over a real file beside a plain exact model: whatever happens in whatever order, the two agree."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kiki.errors import CommitExceedsHold, HoldClosed, KeyReused, SpendDenied
from kiki.shield.budget import SLOTS
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Budget, Limit, Policy
from kiki.shield.replay import replay
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND, FakeClock

UNIT = 1_000_000


def budget(name, pattern, *limits):
    return Budget(
        name, Pattern.parse(pattern), tuple(Limit(units * UNIT, seconds * SECOND) for units, seconds in limits)
    )


POLICIES = [
    Policy((budget("all", "*", (100, 60), (300, 600)), budget("each", "campaign:*", (40, 60)))),
    Policy((budget("all", "*", (80, 60)), budget("meta", "platform:meta", (50, 600)))),
    Policy((budget("each", "campaign:*", (60, 7), (90, 600)), budget("platforms", "platform:*", (70, 60)))),
]
UNITS = st.integers(1, 60)
SCOPES = st.sampled_from(
    [
        (),
        ("campaign:a",),
        ("campaign:b",),
        ("platform:meta",),
        ("campaign:a", "platform:meta"),
        ("campaign:c", "platform:x"),
    ]
)
KEYS = st.one_of(st.none(), st.sampled_from([f"key-{number}" for number in range(6)]))
PATTERNS = st.sampled_from(["*", "campaign:a", "campaign:*", "platform:meta"])
STEPS = st.sampled_from([0, 1e-6, 0.012, 0.05, 0.1, 1, 6.99, 7.02, 29.95, 59.9, 60, 60.05, 60.1, 599.5, 601])
LASTS = st.sampled_from([None, None, 0.05, 5, 60, 90, 700])


class Model:
    """What was spent when, what is held until when: exact sums over lists."""

    def __init__(self):
        self.spends: list[tuple[int, int, tuple]] = []
        self.holds: dict[str, tuple[int, tuple, int | None]] = {}
        self.ended: dict[str, tuple[str, int]] = {}

    def move(self, now):
        """Every hold past its deadline became a spend of that moment."""
        for hold, (amount, scopes, deadline) in list(self.holds.items()):
            if deadline is not None and deadline <= now:
                del self.holds[hold]
                self.spends.append((deadline, amount, scopes))
                self.ended[hold] = ("expire", amount)

    def spent(self, instance, now, span):
        """The exact sum over (now - span, now] of what was metered on `instance`."""
        return sum(
            amount
            for at, amount, scopes in self.spends
            if now - span < at <= now and (instance == "*" or instance in scopes)
        )

    def held(self, instance):
        return sum(amount for amount, scopes, _ in self.holds.values() if instance == "*" or instance in scopes)


class GuardMachine(RuleBasedStateMachine):
    """Drives a `BudgetGuard` and the model with the same calls."""

    holds = Bundle("holds")

    def __init__(self):
        super().__init__()
        # In memory where there is such a file system: the machine syncs thousands of times.
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.clock = FakeClock()
        self.policy = POLICIES[0]
        self.model = Model()
        self.keys = {}
        self.halts = set()
        self.admitted = 0
        self.guard = self.open()

    def open(self):
        return BudgetGuard.open(self.folder / "shield.db", policy=self.policy, clock=self.clock)

    def teardown(self):
        self.guard.close()
        shutil.rmtree(self.folder)

    # -- what the model expects --

    def meters(self, scopes):
        """Every (instance, limit) that a spend with these scopes is counted on."""
        for each in self.policy.budgets:
            instance = each.pattern.instance(scopes)
            if instance is not None:
                for limit in each.limits:
                    yield instance, limit

    def judge(self, scopes, amount, allowed, reason):
        """Whether an answer was right: never over, and not refused where one more slot of patience would admit."""
        now = self.clock.now
        if any(Pattern.parse(pattern).instance(scopes) for pattern in self.halts):
            assert (allowed, reason) == (False, "halted")
            return
        fits = True
        for instance, limit in self.meters(scopes):
            held = self.model.held(instance)
            if allowed:
                assert self.model.spent(instance, now, limit.span) + held + amount <= limit.micros
            slot = -(-limit.span // SLOTS)
            fits &= self.model.spent(instance, now, limit.span + slot) + held + amount <= limit.micros
        assert allowed or not fits

    def keyed(self, key, request, act):
        """Act under a key: the answer, or None when it is a repeat that was answered as it must be."""
        known = self.keys.get(key) if key else None
        if known is None:
            answer = act()
            if key:
                self.keys[key] = (request, answer)
            return answer
        if known[0] == request:
            assert known[1] == act()
        else:
            try:
                act()
            except KeyReused:
                return None
            raise AssertionError("the key was taken for another request")
        return None

    # -- the verbs --

    @rule(units=UNITS, scopes=SCOPES, key=KEYS)
    def spend(self, units, scopes, key):
        """A spend is taken or refused."""

        def act():
            try:
                outcome = self.guard.spend(units, scopes, key)
            except SpendDenied as denied:
                return (False, denied.reason, denied.event_id)
            return (True, None, outcome.event_id)

        answer = self.keyed(key, ("spend", units, scopes), act)
        if answer is not None:
            self.judge(scopes, units * UNIT, *answer[:2])
            if answer[0]:
                self.model.spends.append((self.clock.now, units * UNIT, scopes))

    @rule(items=st.lists(st.tuples(UNITS, SCOPES), min_size=1, max_size=5), key=KEYS)
    def spend_many(self, items, key):
        """Each amount of a batch is judged after the ones before it."""

        def act():
            return [(each.allowed, each.reason, each.event_id) for each in self.guard.spend_many(items, key=key)]

        answer = self.keyed(key, ("many", tuple(items)), act)
        for (units, scopes), (allowed, reason, _) in zip(items, answer or [], strict=False):
            self.judge(scopes, units * UNIT, allowed, reason)
            if allowed:
                self.model.spends.append((self.clock.now, units * UNIT, scopes))

    @rule(target=holds, units=UNITS, scopes=SCOPES, seconds=LASTS, key=KEYS)
    def reserve(self, units, scopes, seconds, key):
        """A reservation is held or refused; its repeat is the same hold."""

        def act():
            try:
                hold = self.guard.reserve(units, scopes, key, seconds=seconds)
            except SpendDenied as denied:
                return (False, denied.reason, denied.event_id, None)
            return (True, None, hold.event_id, hold.id)

        answer = self.keyed(key, ("reserve", units, scopes, seconds), act)
        if answer is None:
            return None
        allowed, reason, _, hold = answer
        self.judge(scopes, units * UNIT, allowed, reason)
        if allowed:
            deadline = None if seconds is None else self.clock.now + round(seconds * SECOND)
            self.model.holds[hold] = (units * UNIT, scopes, deadline)
        return hold

    @rule(hold=holds, part=st.sampled_from([0, 0.3, 1, 1.01]))
    def commit(self, hold, part):
        """A hold becomes a spend, once, of at most what it was."""
        self.settle(hold, "commit", part)

    @rule(hold=holds)
    def release(self, hold):
        """A hold comes to nothing, once."""
        self.settle(hold, "release", 0)

    @rule(hold=consumes(holds))
    def settle_twice(self, hold):
        """The same settlement again changes nothing."""
        self.settle(hold, "commit", 0.5)
        self.settle(hold, "commit", 0.5)

    def settle(self, hold, verb, part):
        if hold is None:
            return
        open_hold = self.model.holds.get(hold)
        whole = open_hold[0] if open_hold else self.model.ended[hold][1]
        micros = round(whole * part / 10_000) * 10_000
        text = f"{micros // UNIT}.{micros % UNIT:06d}"

        def act():
            return self.guard.commit(hold, text) if verb == "commit" else self.guard.release(hold)

        if micros > whole and (open_hold or self.model.ended[hold][0] == "expire"):
            try:
                act()
            except CommitExceedsHold:
                return
            raise AssertionError("more was committed than was held")
        if open_hold is not None:
            fact = act().fact
            assert (micros, whole, False) == (fact.charged, fact.reserved, fact.late)
            del self.model.holds[hold]
            if micros:
                self.model.spends.append((self.clock.now, micros, open_hold[1]))
            self.model.ended[hold] = (f"{verb} {micros}", whole)
        elif self.model.ended[hold][0] == "expire":
            fact = act().fact
            assert (0, whole, True, micros) == (fact.charged, fact.reserved, fact.late, fact.actual)
            self.model.ended[hold] = (f"{verb} {micros}", whole)
        elif self.model.ended[hold][0] == f"{verb} {micros}":
            assert act().repeated
        else:
            try:
                act()
            except HoldClosed:
                return
            raise AssertionError("a hold was settled in two ways")

    @rule(units=st.integers(1, 150), scopes=SCOPES)
    def record(self, units, scopes):
        """What was spent elsewhere counts, whatever the limit."""
        assert self.guard.record(units, scopes).allowed
        self.model.spends.append((self.clock.now, units * UNIT, scopes))

    @rule(units=UNITS, scopes=SCOPES)
    def check(self, units, scopes):
        """A check answers as a spend would, and takes nothing."""
        outcome = self.guard.check(units, scopes)
        self.judge(scopes, units * UNIT, outcome.allowed, outcome.reason)

    @rule(pattern=PATTERNS, on=st.booleans())
    def halt(self, pattern, on):
        """The kill switch goes on and off."""
        (self.guard.halt if on else self.guard.resume)(pattern)
        (self.halts.add if on else self.halts.discard)(pattern)

    # -- time, restarts, policies --

    @rule(seconds=STEPS)
    def advance(self, seconds):
        """Time passes, and holds run out."""
        self.clock.advance(seconds)
        self.model.move(self.clock.now)

    @rule(seconds=STEPS)
    def restart(self, seconds):
        """A new process finds everything as it was, at whatever moment it starts."""
        self.advance(seconds)
        before = self.counted(self.guard.status())
        self.guard.close()
        self.guard = self.open()
        assert before == self.counted(self.guard.status())

    @rule(policy=st.sampled_from(POLICIES))
    def use(self, policy):
        """Another policy counts what was spent before."""
        self.guard.use(policy)
        self.policy = policy

    @rule()
    def tick(self):
        """The guard does what must not wait."""
        self.guard.decider.tick()

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy):
        """Any policy may be the first."""
        self.use(policy)

    @staticmethod
    def counted(status):
        """What meters say that count anything; those that count nothing may or may not be listed."""
        return sorted(
            (each.budget, each.scope, each.span, each.spent, each.held, each.room_at)
            for each in status
            if each.spent or each.held
        )

    # -- always --

    @invariant()
    def counts_what_was_spent(self):
        """Each meter says at least the exact sum and at most that of one slot more, and exactly what is held."""
        now = self.clock.now
        for each in self.guard.status():
            slot = -(-each.span // SLOTS)
            least = self.model.spent(each.scope, now, each.span)
            assert least <= each.spent <= self.model.spent(each.scope, now, each.span + slot)
            assert self.model.held(each.scope) == each.held

    @invariant()
    def no_meter_is_missing(self):
        """Whatever counts is listed."""
        listed = {(each.scope, each.span) for each in self.guard.status()}
        for _, _, scopes in [*self.model.spends, *((0, 0, hold[1]) for hold in self.model.holds.values())]:
            for instance, limit in self.meters(scopes):
                if self.model.spent(instance, self.clock.now, limit.span) or self.model.held(instance):
                    assert (instance, limit.span) in listed

    @invariant()
    def holds_are_the_open_ones(self):
        """The open holds are the model's, with their amounts and deadlines."""
        found = {hold.id: (hold.amount, hold.scopes, hold.deadline) for hold in self.guard.holds()}
        assert self.model.holds == found
        assert sorted(self.halts) == self.guard.halts()

    @invariant()
    def replay_from_the_beginning_gives_the_same(self):
        """A fresh window that is told the whole ledger counts and holds what the guard's does."""
        window = LocalWindow(self.policy, self.clock)
        replay(self.guard.decider.ledger.store, window, [], since=0)
        assert self.counted(self.guard.status()) == self.counted(window.status())
        assert {hold.id for hold in window.holds()} == set(self.model.holds)


# Not made smaller when it fails: over real files that takes minutes. The steps that failed are printed as they were.
GuardMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestGuard = GuardMachine.TestCase
