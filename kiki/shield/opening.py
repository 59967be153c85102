"""Puts a guard together: its stores, its window, its decider. Where a shared window is missing, it says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kiki.clock import Clock, steady_clock, wall_micros
from kiki.errors import InvalidInput, PolicyError, WindowUnavailable
from kiki.ledger.ledger import Ledger, signed_sizes
from kiki.ledger.master_key import KeySource
from kiki.ledger.memory import MemoryStore
from kiki.ledger.source import Database
from kiki.ledger.store import Reader, Store
from kiki.ledger.subjects import Subjects
from kiki.money import MICROS
from kiki.settings import RedisAddress
from kiki.shield.books import key_retention
from kiki.shield.decider import Decider
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Policy, parse_policy
from kiki.shield.projections import POLICY, known_epoch
from kiki.shield.window import Window
from kiki.shield.window_rebuild import EpochAuthority, Numbering

if TYPE_CHECKING:
    from kiki.shield.redis_window import RedisWindow

logger = logging.getLogger("kiki.shield")

LTV_MIN = 10 * MICROS
LTV_MAX = 10_000 * MICROS
KEYS_MAX = 10_000_000
SCOPES_MAX = 1_000_000
MASTER_KEY_FILE = "master.key"


def open_decider(
    path: Path | None,
    policy: Policy | None,
    *,
    database: Database | None = None,
    keys: KeySource | None = None,
    redis: RedisAddress | None = None,
    redis_prefix: str = "kiki",
    redis_timeout: float = 0.25,
    clock: Clock | None = None,
    scopes_max: int = SCOPES_MAX,
    keys_max: int = KEYS_MAX,
    ltv_min: int = LTV_MIN,
    ltv_max: int = LTV_MAX,
) -> Decider:
    """A decider over the ledger at `path` (None: in memory) or in a `database`, sharing budgets through `redis` if given.

    Without a policy it goes on under the one used last. `keys` says where the master key comes from; without it,
    from `master.key` beside the ledger, which is made when it is missing. Raises `LedgerLocked`,
    `LedgerUnavailable`, `LedgerCorrupt` or `MasterKeyError`; lets go of everything when it fails.
    """
    if path is not None and (not path.name or "\0" in str(path)):
        raise InvalidInput(f"the ledger's path {str(path)[:80]!r} names no file: write one, or None for one in memory")
    opened: list[Store | Window] = []
    try:
        store, directory = _stores(path, database, opened)
        if keys is None and path is not None:
            keys = KeySource(file=path.with_name(MASTER_KEY_FILE), may_create=True)
        subjects = Subjects(directory, keys, clock or wall_micros)
        if subjects.made_key and keys is not None:
            logger.warning(
                "a master key was made: %s opens everything personal in this ledger; back it up apart from the ledger, "
                "because without it all of that stays unreadable, and whoever has both can read it",
                keys.file,
            )
        ledger = Ledger(store, clock or steady_clock(), subjects.signing_seed)
        ledger.require_companion("directory of persons", subjects.digest)
        if not store.is_shared:
            subjects.require_ledger(ledger.chain)
        if store.is_shared:
            others = _all_chains(store)
            ledger.others = lambda: {
                chain: size for chain, size in signed_sizes(others()).items() if chain != ledger.chain
            }
        if policy is None:
            known = store.get(POLICY, b"")
            policy = Policy(()) if known is None else Policy.load(known)
        if clock is None:
            # Never before what the ledger says has happened, whatever the wall clock says now.
            clock = steady_clock(ledger.recorded_at + 1)
            ledger.clock = clock
        authority = _authority(store, subjects, redis_prefix)
        window = _window(policy, clock, ledger, redis, redis_prefix, redis_timeout, scopes_max, keys_max, authority)
        opened.append(window)
        decider = Decider(
            ledger,
            subjects,
            window,
            policy,
            clock,
            ltv_min=ltv_min,
            ltv_max=ltv_max,
            keys_max=keys_max,
            all_chains=_all_chains(store),
        )
        if not isinstance(window, LocalWindow):
            window.on_new_epoch(decider.open_holds)
        return decider
    except BaseException:
        for each in reversed(opened):
            each.close()
        raise


def read_policy(path: Path, currency: str = "USD") -> Policy:
    """The policy in a YAML file; raises `PolicyError` with every mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError([f"{path}: cannot be read: {error}"]) from error
    return parse_policy(text, str(path), currency)


def subjects_path(ledger_path: Path) -> Path:
    """Where the directory of persons lies: beside the ledger, in a file that has its own backups."""
    return ledger_path.with_name(f"{ledger_path.stem}-subjects{ledger_path.suffix or '.db'}")


def _stores(path: Path | None, database: Database | None, opened: list[Store | Window]) -> tuple[Store, Store]:
    """The store of the ledger and the one of its keys."""
    if database is not None:
        # psycopg is an extra, and loaded only where there is a database.
        from kiki.ledger.postgres import SCHEMA, PostgresStore

        url, name, taken = database.url.reveal(), database.replica, database.when_taken
        ledger = PostgresStore(url, name, when_taken=taken)
        opened.append(ledger)
        keys = PostgresStore(url, name, when_taken=taken, schema=f"{SCHEMA}_keys")
        opened.append(keys)
        return ledger, keys
    if path is None:
        return MemoryStore(), MemoryStore()
    # apsw is loaded only where there is a file.
    from kiki.ledger.sqlite import SqliteStore

    store = SqliteStore(path)
    opened.append(store)
    directory = SqliteStore(subjects_path(path))
    opened.append(directory)
    return store, directory


def _all_chains(store: Store) -> Callable[[], list[Reader]]:
    """How the chains of a shared store are found: others may begin at any time."""
    readers: Callable[[], list[Reader]] | None = getattr(store, "readers", None)
    return readers or (lambda: [store])


def _authority(store: Store, subjects: Subjects, prefix: str) -> EpochAuthority | None:
    """Who numbers the epochs of a shared window: a database that all its processes write to."""
    if not store.is_shared:
        return None
    return EpochAuthority(cast("Numbering", store), prefix, _all_chains(store), subjects)


def _window(
    policy: Policy,
    clock: Clock,
    ledger: Ledger,
    redis: RedisAddress | None,
    prefix: str,
    timeout: float,
    scopes_max: int,
    keys_max: int,
    authority: EpochAuthority | None,
) -> LocalWindow | RedisWindow:
    if redis is not None:
        # redis-py is loaded only where it is used.
        from kiki.shield.redis_epoch import KnownEpoch
        from kiki.shield.redis_window import RedisWindow

        met = known_epoch(ledger.store)
        try:
            return RedisWindow.connect(
                policy,
                redis,
                chain=ledger.chain,
                known=None if met is None else KnownEpoch(*met),
                prefix=prefix,
                timeout=timeout,
                scopes_max=scopes_max,
                keys_max=keys_max,
                key_retention=key_retention(policy),
                local_clock=clock,
                authority=authority,
            )
        except WindowUnavailable as error:
            # Only a loopback address raises here: on this machine a missing Redis means that there is none.
            logger.warning("%s: the budgets are counted in this process alone until it is restarted", error)
    return LocalWindow(policy, clock, scopes_max=scopes_max)
