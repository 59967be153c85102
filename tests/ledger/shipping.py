"""What the tests of segments, archives and anchors stand on: a ledger in memory and time that is moved by hand."""

from __future__ import annotations

import io

import msgspec

from kiki.ledger.archive import DirectoryArchive
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.ledger import Append, Ledger
from kiki.ledger.memory import MemoryStore
from kiki.ledger.segment import parse_name
from kiki.ledger.segment_log import SegmentLog
from kiki.ledger.shipper import Shipper
from tests.ledger.doubles import FakeClock

SEED = bytes(range(32))


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    text: str


class BrokenArchive(DirectoryArchive):
    """Raises what `errors` holds, one a put, before or after the put took effect."""

    def __init__(self, root):
        super().__init__(root)
        self.errors = []
        self.after = False

    def put_if_absent(self, name, content):
        error = self.errors.pop(0) if self.errors else None
        if error is not None and not self.after:
            raise error
        stored = super().put_if_absent(name, content)
        if error is not None:
            raise error
        return stored


class Steady:
    """A monotonic clock that is moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Rig:
    """A ledger in memory, a broken archive, and a shipper whose time is moved by hand."""

    def __init__(self, root, **options):
        self.clock, self.steady = FakeClock(), Steady()
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, self.clock, SEED)
        self.archive = BrokenArchive(root)
        self.options = options
        self.restart()

    def restart(self):
        """As after a crash: only what is durable is left."""
        self.owner = SegmentLog(self.ledger)
        self.shipper = Shipper(
            self.owner, self.store, self.archive, self.ledger.signer,
            clock=self.clock, steady=self.steady, chance=lambda: 0.0, **self.options,
        )  # fmt: skip

    def write(self, count):
        self.ledger.append_all([Append(Noted(f"fact {number}")) for number in range(count)])

    def pass_time(self, seconds):
        self.clock.advance(seconds)
        self.steady.now += seconds

    def names(self):
        return [parse_name(name)[1:] for name in self.archive.list()]

    def work(self):
        while self.shipper.step() == 0:
            pass


def verified(archive, key):
    """The stretches in an archive, each a bundle that holds; together they leave no gap."""
    stretches, following = [], 0
    for name in archive.list():
        result = verify_bundle(io.BytesIO(b"".join(archive.get(name))), key, partial=True)
        (chain,) = result.chains
        assert (chain.chain, chain.first, chain.last) == parse_name(name)
        assert following == chain.first
        following = chain.last + 1
        stretches.append((chain.first, chain.last))
    return stretches
