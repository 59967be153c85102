r"""Proof of what became of a request: one signed text that names nobody, for the person, a court or an auditor.

It is a C2SP signed note: a first line that says what it is, one line of canonical JSON (names sorted, no spaces, ASCII),
and the signature of the ledger's key, the same that signs checkpoints.

    kiki-request-proof/1 DSR-1700000000-5f0c2a9b
    {"checkpoints":{"81d0c3b2a4958677":"kiki/81d0c3b2a4958677\n42\n…"},"closed_at":"…",…}

    — kiki/81d0c3b2a4958677 <base64 of key id and signature>

The JSON has the request's id, type, times and clocks, the random reference of its subject, the outcome of every system
with counts and with what stays and why, the event ids of its facts, and for each chain that holds any of them a signed
checkpoint that covers them all. So whoever has the ledger, or a bundle of it, finds the facts, and nobody can change them
later. It is made anew each time from the same facts, to the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from kiki.clock import to_iso
from kiki.errors import CheckpointInvalid, Conflict, EvidenceInvalid
from kiki.ledger.checkpoint import Signer, VerifierKey, log_origin, open_note, split_note
from kiki.shield.deadline import Deadline
from kiki.shield.request_record import deadline_dict, outcome_dict
from kiki.shield.subject_request import SubjectRequest

FORMAT: Final = "kiki-request-proof/1"
_BYTES_MAX: Final = 4 << 20


class VerifiedRequestProof(NamedTuple):
    """What a proof says, after it was checked."""

    request: str
    subject: str
    kind: str
    state: str
    closed_at: str
    document: Mapping[str, Any]
    """Everything it says."""


def make_request_proof(
    request: SubjectRequest, clocks: Iterable[Deadline], checkpoints: Mapping[str, bytes], signer: Signer
) -> str:
    """The proof of a closed request; `checkpoints` has, by chain, a signed note that covers the request's facts there.

    Raises `Conflict` while the request is open.
    """
    if request.closed_at is None:
        raise Conflict(
            f"request {request.id} is {request.state}: there is a proof once it is closed", hint="run it to its end"
        )
    events: dict[str, list[int]] = {}
    for event in request.events:
        events.setdefault(event.chain, []).append(event.seq)
    document = {
        "article": request.article,
        "checkpoints": {chain: note.decode() for chain, note in checkpoints.items()},
        "closed_at": to_iso(request.closed_at),
        "clocks": [deadline_dict(clock) for clock in clocks],
        "events": {chain: sorted(seqs) for chain, seqs in events.items()},
        "legal_holds": list(request.held),
        "package_sha256": request.package.hex(),
        "purposes": list(request.purposes),
        "received_at": to_iso(request.received_at),
        "regimes": [regime.value for regime in request.regimes],
        "request": request.id,
        "state": request.state.value,
        "subject": request.subject,
        "systems": {name: outcome_dict(outcome) for name, outcome in request.systems.items()},
        "type": request.kind.value,
        "verified_at": "" if request.verified_at is None else to_iso(request.verified_at),
        "verified_by": request.verified_by,
    }
    return signer.sign_text(f"{FORMAT} {request.id}\n{_canonical(document)}\n").decode()


def verify_request_proof(text: str | bytes, key: str) -> VerifiedRequestProof:
    """What a proof says; raises `EvidenceInvalid`, whose `place` names the part that does not hold.

    `key` is the ledger's verifier key, which the caller has from elsewhere. The key signs under the name of a chain; the
    chains of one database share it, so any of them is accepted.
    """
    data = text.encode() if isinstance(text, str) else text
    if len(data) > _BYTES_MAX:
        raise EvidenceInvalid(f"a proof has at most {_BYTES_MAX} bytes", place="proof")
    try:
        trusted = VerifierKey.parse(key)
        body, signatures = split_note(data)
        trusted = trusted._replace(name=signatures[0].name)
        if len(signatures) != 1:
            raise CheckpointInvalid("a proof has one signature")
        trusted.verify(body, signatures[0])
    except CheckpointInvalid as error:
        raise EvidenceInvalid(str(error), place="signature", hint=error.hint) from None
    head, _, rest = body.partition("\n")
    try:
        document = json.loads(rest)
        if rest != f"{_canonical(document)}\n" or head != f"{FORMAT} {document['request']}":
            raise ValueError
        events: dict[str, list[int]] = document["events"]
        found = VerifiedRequestProof(
            document["request"],
            document["subject"],
            document["type"],
            document["state"],
            document["closed_at"],
            document,
        )
        covered = [(chain, max(seqs), document["checkpoints"].get(chain, "")) for chain, seqs in events.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise EvidenceInvalid(f"it is not written as {FORMAT} has it", place="document") from None
    for chain, last, note in covered:
        _require_covered(trusted, chain, last, note)
    return found


def _require_covered(trusted: VerifierKey, chain: str, last: int, note: str) -> None:
    try:
        checkpoint, _ = open_note(note.encode(), trusted._replace(name=log_origin(chain)))
    except CheckpointInvalid as error:
        raise EvidenceInvalid(str(error), place=f"checkpoint of {chain}", hint=error.hint) from None
    if checkpoint.origin != log_origin(chain) or checkpoint.size <= last:
        raise EvidenceInvalid(f"it does not cover entry {last}", place=f"checkpoint of {chain}")


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
