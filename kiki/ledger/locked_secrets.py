"""The secrets of a ledger, locked in its key store with the master key.

A new master key wraps the four secrets anew and touches nothing else.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from kiki.errors import LedgerCorrupt, MasterKeyError
from kiki.ledger.master_key import KeySource, MasterKey
from kiki.ledger.sealing import KEY_BYTES
from kiki.ledger.store import SHARED, Reader, Store, Write

SECRETS: Final = SHARED + "secret"
_SIGNING: Final = b"signing"
_NAMES: Final = (b"lookup", b"suppression", _SIGNING, b"wrapping")


class Secrets(NamedTuple):
    """What a ledger keeps from everybody, in the order of their names."""

    lookup: bytes
    """Hashes what persons and keys are found by."""
    suppression: bytes
    """Hashes who was erased."""
    signing: bytes
    """The Ed25519 seed that signs checkpoints."""
    wrapping: bytes
    """Wraps the keys of persons and segments."""


def unlock(store: Store, source: KeySource | None) -> tuple[Secrets, bool]:
    """The secrets of a key store, made and locked if it has none, and whether a master key was made for them just now.

    Without a source they are forgotten with the process. Raises `MasterKeyError` for no key or the wrong one.
    """
    locked = store.get_many(SECRETS, _NAMES)
    is_made = False
    if source is None:
        master = MasterKey(os.urandom(KEY_BYTES))
    else:
        found = source.read()
        if found is None and locked:
            raise MasterKeyError(
                f"the key store is locked, and its master key is not at {source.file}",
                hint="put the key back from your secret store or backup, or name it with KIKI_MASTER_KEY_FILE, "
                "KIKI_MASTER_KEY or KIKI_MASTER_KEY_COMMAND; nothing was changed",
            )
        is_made = found is None
        master = found or source.create()
    if not locked:
        fresh = {name: os.urandom(KEY_BYTES) for name in _NAMES}
        # Of two replicas that start at once the first one's secrets stand.
        locked = store.add(SECRETS, {name: master.wrap(name, secret) for name, secret in fresh.items()})
    if len(locked) != len(_NAMES):
        raise LedgerCorrupt("the key store lacks some of its secrets", hint="restore it from a backup")
    return Secrets(*(master.unwrap(name, locked[name]) for name in _NAMES)), is_made


def rotate_master_key(store: Store, old: MasterKey, new: MasterKey) -> None:
    """Lock the key store with another master key, in one commit; no entry and no person's key is rewritten.

    Whoever had the old master key and a copy of the key store can still read what that copy opens.
    """
    locked = store.get_many(SECRETS, _NAMES)
    if not locked:
        raise MasterKeyError("this key store is not locked with any master key yet", hint="start a service on it first")
    store.commit([], [Write(SECRETS, name, new.wrap(name, old.unwrap(name, data))) for name, data in locked.items()])
    store.compact()


def read_signing_seed(reader: Reader, source: KeySource) -> bytes:
    """The Ed25519 seed that signs a ledger's checkpoints, for who reads its key store beside the owner.

    Raises `MasterKeyError` when `source` has no key or another one.
    """
    locked = reader.get(SECRETS, _SIGNING)
    master = source.read()
    if locked is None or master is None:
        what = "this key store is not locked yet" if locked is None else f"there is no master key at {source.file}"
        raise MasterKeyError(
            f"{what}, so the key that signs checkpoints cannot be read",
            hint="name the master key with KIKI_MASTER_KEY_FILE, KIKI_MASTER_KEY or KIKI_MASTER_KEY_COMMAND",
        )
    return master.unwrap(_SIGNING, locked)


def is_locked_with(reader: Reader, master: MasterKey) -> bool:
    """Whether this is the master key that opens a key store."""
    locked = reader.get(SECRETS, _SIGNING)
    return locked is not None and locked.startswith(master.id)
