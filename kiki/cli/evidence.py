"""`kiki audit verify|bundle|prove|seal|key`: evidence that a stranger can check, and the check itself."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, cast

import typer

from kiki.cli import evidence_show, show
from kiki.cli.ledger_access import LedgerFile, access, key_text, progress, witness_keys, written_file
from kiki.cli.options import DataDir, Json, require_order, when_micros
from kiki.errors import EvidenceInvalid, InvalidInput, LedgerCorrupt, LedgerLocked, NotFound

if TYPE_CHECKING:
    from kiki.cli.ledger_access import Access

VerifierKey = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY|FILE", help="The verifier key that you got apart from the evidence (kiki audit key)."
    ),
]
WitnessKeys = Annotated[
    list[str] | None,
    typer.Option("--witness", metavar="KEY|FILE", help="Verifier key of a witness. Repeatable; also KIKI_WITNESS_KEY."),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="WHEN", help="Recorded from then on: 2h, 7d, 2026-11-22 or RFC 3339.")
]
To = Annotated[str | None, typer.Option("--to", metavar="WHEN", help="Recorded before that.")]

_SEAL_SECONDS: Final = 15.0
_EVERY: Final = 4096


def verify(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[BUNDLE]", help="A file that kiki audit bundle wrote. Without: the ledger."),
    ] = None,
    key: VerifierKey = None,
    witness: WitnessKeys = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", metavar="FILE", help="Check what kiki audit prove wrote.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="The bundle is a segment of the archive: other chains may be missing.")
    ] = False,
    ledger: LedgerFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Check evidence: signatures, the tree, every entry, budgets and consent.

    A bundle or a proof is checked offline. Exit code 0 when everything holds, 3 with the place when something does not.
    """
    if bundle is not None and proof is not None:
        raise InvalidInput("give a bundle or --proof FILE, not both")
    trusted = key_text(key)
    witnesses = witness_keys(_witnesses(witness))
    try:
        # Millions of small objects live as long as the check, and none is part of a cycle: looking for some takes half the time.
        gc.disable()
        if proof is not None:
            _verify_proof(proof, trusted, witnesses, as_json=as_json)
        elif bundle is not None:
            _verify_bundle(bundle, trusted, witnesses, partial=partial, as_json=as_json)
        else:
            _verify_live(access(ledger, data_dir), trusted, witnesses, as_json=as_json)
    except (EvidenceInvalid, LedgerCorrupt) as error:
        if as_json:
            # What cannot be read at all has no place within it.
            place = getattr(error, "place", "") or str(proof or bundle or access(ledger, data_dir).source)
            show.as_json({"holds": False, "place": place, "message": str(error)})
        else:
            show.line(f"does not hold: {error}")
            if error.hint:
                show.talk(f"hint: {error.hint}", dim=True)
        raise typer.Exit(show.EXIT_REFUSED) from None
    finally:
        gc.enable()


def _witnesses(given: list[str] | None) -> list[str]:
    own = os.environ.get("KIKI_WITNESS_KEY")
    return [*(given or ()), *([own] if own else [])]


def _verify_proof(proof: Path, key: str | None, witnesses: list[str], *, as_json: bool) -> None:
    from kiki.clock import to_iso
    from kiki.ledger.proof import PROOF_BYTES
    from kiki.ledger.proof_verifier import verify_proof
    from kiki.shield.decision import event_id

    with _opened(proof) as file:
        found = verify_proof(file.read(PROOF_BYTES + 1), key, witnesses=witnesses)
    if as_json:
        show.as_json(
            {
                "holds": True,
                "trusted": found.trusted,
                "chain": found.chain,
                "seq": found.seq,
                "event_id": event_id(found.seq),
                "size": found.size,
                "root": found.root.hex(),
                "signed_at": None if found.at is None else to_iso(found.at),
                "key": found.key,
                "witnesses": [cosigner.name for cosigner in found.cosigners],
            }
        )
        return
    signed = "" if found.at is None else f", signed {to_iso(found.at)}"
    show.line(
        f"holds: entry {found.seq} (event {event_id(found.seq)}) of chain {found.chain} is in the tree of {found.size} "
        f"entries{signed}"
    )
    evidence_show.trust(found.key, trusted=found.trusted)


def _verify_bundle(bundle: Path, key: str | None, witnesses: list[str], *, partial: bool, as_json: bool) -> None:
    from kiki.ledger.bundle_verifier import verify_bundle
    from kiki.shield.audit_check import audit

    with _opened(bundle) as file, progress("verifying", bundle.stat().st_size) as told:

        def read(on_entry: Any) -> Any:
            file.seek(0)
            return verify_bundle(file, key, on_entry, told, witnesses=witnesses, partial=partial)

        verified, report = audit(read)
    evidence_show.verdict(verified.chains, report, as_json=as_json, key=verified.key, trusted=verified.trusted)


def _verify_live(found: Access, key: str | None, witnesses: list[str], *, as_json: bool) -> None:
    from kiki.ledger.exhibit import verifier_key
    from kiki.ledger.live_verifier import verify_ledger
    from kiki.shield.audit_check import audit

    with found.readers() as readers:
        trusted = key or verifier_key(readers[0], found.seed())
        total = sum(reader.next_seq() - reader.first_seq() for reader in readers)
        with progress("verifying", total) as told:
            done: dict[str, int] = {}

            def passed(how_far: Any) -> None:
                done[how_far.chain] = how_far.done
                told(sum(done.values()))

            chains, report = audit(
                lambda on_entry: verify_ledger(
                    readers, trusted, witnesses=witnesses, on_entry=on_entry, progress=passed
                )
            )
    evidence_show.verdict(tuple(chains), report, as_json=as_json, key=trusted, trusted=True)


def bundle(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to, whole or not at all.")],
    since: From = None,
    until: To = None,
    ledger: LedgerFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write one file that proves the decisions of a time, offline, to a stranger.

    It ends with the last checkpoint; while no service runs, one is signed first.
    """
    from kiki.clock import wall_micros
    from kiki.ledger.bundle import write_bundle
    from kiki.ledger.checkpoint import Signer, log_origin
    from kiki.ledger.exhibit import chain_id, recorded, seal, stretches

    found = access(ledger, data_dir)
    seed = found.seed()
    begin, end = when_micros(since), when_micros(until)
    require_order(begin, end)
    with contextlib.suppress(LedgerLocked):
        seal(found.source, seed)
    with found.readers() as readers, written_file(output) as file:
        if not any(recorded(reader, begin, end) for reader in readers):
            raise NotFound(
                "nothing was recorded in that time", hint="leave out --from and --to for everything there is"
            )
        total = sum(reader.next_seq() - reader.first_seq() for reader in readers)
        with progress("writing", total) as told:
            pieces = stretches(readers, begin, end, _told_to(told))
            signer = Signer(log_origin(chain_id(readers[0])), seed)
            write_bundle(file, [piece.bundle for piece in pieces], signer, at=wall_micros())
        size = file.tell()
    beyond = {piece.bundle.id: piece.beyond for piece in pieces if piece.beyond}
    if as_json:
        show.as_json(
            {"file": str(output), "bytes": size, "chains": [piece.bundle.id for piece in pieces], "not_covered": beyond}
        )
        return
    show.line(f"{output}: {size} bytes, {len(pieces)} chains")
    for chain, count in beyond.items():
        show.talk(f"the last {count} entries of chain {chain} are not in it: no checkpoint covers them yet")


def _told_to(told: Any) -> Any:
    count = 0

    def passed(entries: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        nonlocal count
        for entry in entries:
            count += 1
            if count % _EVERY == 0:
                told(count)
            yield entry

    return passed


def prove(
    event: Annotated[str, typer.Option("--event", metavar="ID", help="The event id of a decision: 16 digits.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to stdout.")
    ] = None,
    chain: Annotated[
        str | None, typer.Option("--chain", metavar="ID", help="Which chain, where there are several.")
    ] = None,
    ledger: LedgerFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write the proof that one decision is in the ledger.

    A few kilobytes of JSON, which kiki audit verify --proof checks offline.
    """
    from kiki.ledger.exhibit import chain_id, prove, seal, verifier_key
    from kiki.shield.evidence import find_event, parse_event_id

    seq, _ = parse_event_id(event)
    found = access(ledger, data_dir)
    seed = found.seed()
    with contextlib.suppress(LedgerLocked):
        seal(found.source, seed)
    with found.readers() as readers:
        chains = {chain_id(reader): reader for reader in readers}
        if chain is None and len(chains) > 1:
            raise InvalidInput(
                "there are several chains, and each has such an event", hint=f"--chain {' or '.join(chains)}"
            )
        reader = readers[0] if chain is None else chains.get(chain)
        if reader is None:
            raise InvalidInput(f"there is no chain {chain!r}", hint=f"there are: {', '.join(chains)}")
        text = prove(reader, seq, verifier_key(reader, seed))
        if find_event(reader, event) is None:
            raise NotFound(f"entry {seq} has no event {event}", hint="its last four digits are a place in a batch")
    if output is None:
        print(text, end="")
        return
    with written_file(output) as file:
        file.write(text.encode())
    show.talk(f"{output}: {len(text.encode())} bytes", dim=True)


def key(ledger: LedgerFile = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Print the verifier key, to hand to an auditor apart from the evidence.

    One line for each chain; it is the same key, and any of the lines will do.
    """
    from kiki.ledger.exhibit import verifier_key

    found = access(ledger, data_dir)
    seed = found.seed()
    with found.readers() as readers:
        keys = [verifier_key(reader, seed) for reader in readers]
    if as_json:
        show.as_json({"keys": keys})
        return
    for text in keys:
        show.line(text)


def seal(ledger: LedgerFile = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Have a checkpoint over everything there is now.

    While a service runs, it signs one by itself within ten seconds: that one is waited for.
    """
    from kiki.clock import to_iso
    from kiki.ledger.checkpoint import parse_checkpoint, split_note
    from kiki.ledger.exhibit import chain_id, latest
    from kiki.ledger.exhibit import seal as sealed

    found = access(ledger, data_dir)
    with found.readers() as readers:
        wanted = {chain_id(reader): reader.next_seq() for reader in readers}
        with contextlib.suppress(LedgerLocked):
            sealed(found.source, found.seed())
        until = time.monotonic() + _SEAL_SECONDS
        while True:
            notes = {chain_id(reader): latest(reader) for reader in readers}
            behind = [chain for chain, note in notes.items() if (note[0] if note else 0) < wanted[chain]]
            if not behind or time.monotonic() > until:
                break
            time.sleep(0.2)
    if behind:
        raise LedgerLocked(
            f"whoever owns chain {behind[0]} did not sign a checkpoint within {_SEAL_SECONDS:.0f} seconds",
            hint="look at its log: a ledger that cannot write signs nothing",
        )
    for chain, note in notes.items():
        if note is None:
            continue
        checkpoint = parse_checkpoint(split_note(note[1])[0])
        at = None if checkpoint.at is None else to_iso(checkpoint.at)
        if as_json:
            show.as_json({"chain": chain, "size": checkpoint.size, "root": checkpoint.root.hex(), "signed_at": at})
        else:
            show.line(f"chain {chain}: {checkpoint.size} entries, root {checkpoint.root.hex()}, signed {at}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield cast("BinaryIO", file)


def register(app: typer.Typer) -> None:
    """Add the commands to `kiki audit`."""
    for command in (verify, bundle, prove, key, seal):
        app.command()(command)
