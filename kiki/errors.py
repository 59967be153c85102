"""Every error that kiki raises on purpose: one tree, one stable code each. Pure.

KikiError
├── InvalidInput
│   ├── InvalidMoney
│   ├── InvalidScope
│   └── InvalidKey
├── ConfigurationError
│   ├── SettingsError
│   ├── PolicyError
│   ├── PlanError
│   ├── PlaybookError
│   ├── UploadError
│   ├── DatabaseError
│   ├── ValuesError
│   └── SystemsError
├── Denied
│   ├── SpendDenied
│   ├── ConsentDenied
│   ├── PointsShort
│   ├── CodeDenied
│   └── IdentityDenied
├── AccessDenied
│   ├── Unauthenticated
│   └── Forbidden
├── NotFound
│   └── HoldUnknown
├── Conflict
│   ├── KeyReused
│   ├── HoldClosed
│   ├── CommitExceedsHold
│   ├── ConsentConflict
│   ├── LegallyHeld
│   ├── PlanChanged
│   ├── RunTaken
│   └── ArchiveConflict
├── Unavailable
│   ├── LedgerUnavailable
│   ├── EpochPassed
│   ├── WindowUnavailable
│   ├── CapacityReached
│   ├── ShieldUnreachable
│   ├── ValueUnreachable
│   ├── FlowUnreachable
│   ├── PlatformUnreachable
│   ├── ArchiveUnavailable
│   ├── AnchorUnavailable
│   ├── SystemUnavailable
│   ├── SourceUnavailable
│   ├── StoreUnavailable
│   └── StillWorking
├── LedgerCorrupt
├── LedgerLocked
├── MasterKeyError
├── Unreadable
├── ProofInvalid
├── CheckpointInvalid
├── EvidenceInvalid
├── TimestampInvalid
├── ModelInvalid
├── ChartError
└── MissingExtra

Errors know neither HTTP nor exit codes: `kiki.web` and `kiki.cli` translate them at the edge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class KikiError(Exception):
    """Something that kiki refuses or cannot do; `code` is stable, `hint` says what to do next."""

    code: ClassVar[str] = "error"
    hint: str | None = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        super().__init__(message if message is not None else (type(self).__doc__ or "").strip())
        if hint is not None:
            self.hint = hint


class InvalidInput(KikiError, ValueError):
    """The input is not acceptable; nothing was changed."""

    code = "invalid_input"


class InvalidMoney(InvalidInput):
    """The amount is not money that kiki accepts; nothing was charged."""

    code = "invalid_money"


class InvalidScope(InvalidInput):
    """The scope is not written as kind:value; nothing was charged."""

    code = "invalid_scope"


class InvalidKey(InvalidInput):
    """The idempotency key is not acceptable; nothing was charged."""

    code = "invalid_key"


class ConfigurationError(KikiError):
    """What kiki was configured with is wrong; `problems` lists every mistake that was found."""

    code = "configuration"
    subject: ClassVar[str] = "configuration"

    def __init__(self, problems: Iterable[str], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        noun = "mistake" if count == 1 else "mistakes"
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"{self.subject}: {count} {noun}{lines}", hint=hint)


class SettingsError(ConfigurationError):
    """The environment holds settings that kiki cannot use."""

    code = "settings_invalid"
    subject = "settings"


class PolicyError(ConfigurationError):
    """The policy file cannot be used; the policy in force stays as it is."""

    code = "policy_invalid"
    subject = "policy"


class PlanError(ConfigurationError):
    """The campaign plan cannot be used; nothing was sent to any platform."""

    code = "plan_invalid"
    subject = "plan"


class PlaybookError(ConfigurationError):
    """The playbook cannot be used; nobody was contacted."""

    code = "playbook_invalid"
    subject = "playbook"


class UploadError(ConfigurationError):
    """The values cannot be used; nothing was sent to any platform."""

    code = "upload_invalid"
    subject = "values"


class DatabaseError(ConfigurationError):
    """The database is not set up as a ledger needs it; nothing in it was changed."""

    code = "database_unfit"
    subject = "database"


class ValuesError(ConfigurationError):
    """The values of the chart cannot be used; nothing was rendered."""

    code = "values_invalid"
    subject = "values"


class SystemsError(ConfigurationError):
    """The systems that hold personal data are not described well; no request is run over them."""

    code = "systems_invalid"
    subject = "systems that hold personal data"


class Denied(KikiError):
    """A rule said no; nothing was taken."""

    code = "denied"


class SpendDenied(Denied):
    """The spend was refused and nothing was charged.

    `reason` is a word of `kiki.shield.budget.Reason`, `budget` the name of the binding budget (None when
    no budget was the cause), `remaining` what it had left as money text, `retry_after` the seconds until
    the same spend would fit (None: never, as things stand), `event_id` the audit record of the refusal.
    """

    code = "spend_denied"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        budget: str | None = None,
        remaining: str | None = None,
        retry_after: float | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.budget = budget
        self.remaining = remaining
        self.retry_after = retry_after
        self.event_id = event_id


class ConsentDenied(Denied):
    """The person has not consented to this; nothing was done.

    `purpose` is what it was asked for, `state` what is known instead of consent (`none` when nothing is).
    """

    code = "consent_denied"

    def __init__(self, message: str, *, purpose: str, state: str) -> None:
        super().__init__(message)
        self.purpose = purpose
        self.state = state


class PointsShort(Denied):
    """The person has fewer points than were asked for; none was taken. `available` is what could be spent."""

    code = "points_short"

    def __init__(self, message: str, *, available: int) -> None:
        super().__init__(message)
        self.available = available


class CodeDenied(Denied):
    """The coupon code does not count here and now; `reason` is a word of `kiki.engage.coupon_book.Refusal`."""

    code = "code_denied"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class IdentityDenied(Denied):
    """The proof of identity does not hold: the code is wrong, too old, or was tried too often."""

    code = "identity_denied"


class AccessDenied(KikiError):
    """The caller may not do this."""

    code = "access_denied"


class Unauthenticated(AccessDenied):
    """No valid bearer token came with the request."""

    code = "unauthenticated"


class Forbidden(AccessDenied):
    """The caller is known, and its roles do not include this."""

    code = "forbidden"


class NotFound(KikiError):
    """There is nothing under that name."""

    code = "not_found"


class HoldUnknown(NotFound):
    """No reservation has that id."""

    code = "hold_unknown"


class Conflict(KikiError):
    """The request contradicts what already happened; nothing was changed."""

    code = "conflict"


class KeyReused(Conflict):
    """The idempotency key was already used for a different request; nothing was charged."""

    code = "key_reused"


class HoldClosed(Conflict):
    """The reservation was already resolved in another way."""

    code = "hold_closed"


class CommitExceedsHold(Conflict):
    """The commit is larger than what was reserved; the reservation stays open."""

    code = "commit_exceeds_hold"


class ConsentConflict(Conflict):
    """The grant contradicts an opt-out signal that stands; the opt-out stays as it is."""

    code = "consent_conflict"


class LegallyHeld(Conflict):
    """A legal hold stands: nothing of the person may be erased before it is lifted."""

    code = "legally_held"


class PlanChanged(Conflict):
    """The plan is not the one that the run was started with; the run goes on under its own."""

    code = "plan_changed"


class RunTaken(Conflict):
    """Another runner has this run, or took it over; this one touches it no more."""

    code = "run_taken"


class ArchiveConflict(Conflict):
    """The archive holds something else under that name; neither was changed."""

    code = "archive_conflict"


class Unavailable(KikiError):
    """kiki cannot decide now, so it refuses; `retry_after` is in seconds where it is known."""

    code = "unavailable"

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class LedgerUnavailable(Unavailable):
    """The ledger could not make this durable; it may have been written, so it stays counted."""

    code = "ledger_unavailable"
    recoverable: bool = False
    """True when the failed write left nothing behind, so that the ledger may be opened again: a full disk."""


class EpochPassed(Unavailable):
    """The shared window was rebuilt since this was decided, so it was not written down; ask again."""

    code = "epoch_passed"


class WindowUnavailable(Unavailable):
    """The shared budget window cannot be reached or trusted, so nothing is admitted."""

    code = "window_unavailable"


class CapacityReached(Unavailable):
    """A configured cap is reached; what is remembered is kept, and what is new is refused."""

    code = "capacity_reached"


class ShieldUnreachable(Unavailable):
    """SyncShield did not answer; whether it took the spend is unknown until it is asked again with the same key."""

    code = "shield_unreachable"


class ValueUnreachable(Unavailable):
    """SyncValue did not answer in time; ask again, or give the client a fallback."""

    code = "value_unreachable"


class FlowUnreachable(Unavailable):
    """SyncFlow did not answer; what it executes goes on without the caller."""

    code = "flow_unreachable"


class PlatformUnreachable(Unavailable):
    """The ad platform cannot be used now; nothing was spent on it."""

    code = "platform_unreachable"


class ArchiveUnavailable(Unavailable):
    """The archive did not do what was asked; what became of it is unknown until it is asked again."""

    code = "archive_unavailable"


class AnchorUnavailable(Unavailable):
    """The witness or the timestamp service did not give what was asked; deciding goes on without it."""

    code = "anchor_unavailable"


class SystemUnavailable(Unavailable):
    """A system that holds personal data did not do what was asked; what became of it is unknown until it is asked again."""

    code = "system_unavailable"


class StoreUnavailable(Unavailable):
    """The store of customers cannot be read or written; nothing was changed."""

    code = "store_unavailable"


class SourceUnavailable(Unavailable):
    """A system that knows the customers cannot be read now; what was read before stands, and reading goes on from there."""

    code = "source_unavailable"


class StillWorking(Unavailable):
    """A system took the task and is not done yet; asked again later, it tells."""

    code = "still_working"


class LedgerCorrupt(KikiError):
    """The ledger holds something that no version of kiki wrote."""

    code = "ledger_corrupt"


class LedgerLocked(KikiError):
    """Another process owns this ledger; one writer at a time."""

    code = "ledger_locked"


class MasterKeyError(KikiError):
    """The master key is missing, wrong or kept carelessly; nothing was changed."""

    code = "master_key"


class Unreadable(KikiError):
    """What was sealed for one person cannot be read: its key was destroyed, is another one, or bytes were altered."""

    code = "unreadable"


class ProofInvalid(KikiError):
    """The Merkle proof does not prove what it is said to prove."""

    code = "proof_invalid"


class CheckpointInvalid(KikiError):
    """The checkpoint is not written as C2SP has it, or no key that is trusted signed it."""

    code = "checkpoint_invalid"


class EvidenceInvalid(KikiError):
    """Evidence does not hold; `place` names where: the chain, the entry where that is known, the byte offset in a file."""

    code = "evidence_invalid"

    def __init__(self, message: str, *, place: str, hint: str | None = None) -> None:
        super().__init__(f"{place}: {message}", hint=hint)
        self.place = place


class TimestampInvalid(KikiError):
    """The timestamp is none, is over something else, or nobody that is trusted made it."""

    code = "timestamp_invalid"


class ModelInvalid(KikiError):
    """The model file was edited or cut off, is from a newer kiki, or is none; nothing was loaded."""

    code = "model_invalid"


class ChartError(KikiError):
    """The chart is not there or cannot be rendered."""

    code = "chart"


class MissingExtra(KikiError):
    """This needs an optional part of kiki that is not installed."""

    code = "missing_extra"

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the extra '{extra}'", hint=f"pip install 'kiki[{extra}]'")
        self.extra = extra
