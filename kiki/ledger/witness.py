"""A witness in another trust domain, which cosigns only trees that grew from the last one it cosigned (C2SP tlog-witness).

The operator of a ledger holds its signing key, so a rewrite of everything would carry good signatures. It would not carry
this cosignature: a witness that keeps its word never signs two trees of which one is not the beginning of the other.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Final

from kiki.errors import AnchorUnavailable, CheckpointInvalid, SettingsError
from kiki.ledger.anchor_post import Answer, post
from kiki.ledger.checkpoint import (
    WITNESS_KEY,
    Checkpoint,
    Signature,
    VerifierKey,
    parse_checkpoint,
    parse_signature,
    split_note,
)

Proof = Callable[[int, int], list[bytes]]
"""(old size, new size): the RFC 6962 consistency proof between the two trees."""

_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_SIZE_TYPE: Final = "text/x.tlog.size"
_PROOF_LINES: Final = 63
_ATTEMPTS: Final = 3


class Witness:
    """One witness: `url` is its submission prefix, `key` its verifier key in C2SP's form (type 0x04)."""

    def __init__(self, url: str, key: str) -> None:
        try:
            self.key = VerifierKey.parse(key)
        except CheckpointInvalid as error:
            raise SettingsError([f"KIKI_WITNESS_KEY: {error}"]) from error
        if self.key.kind != WITNESS_KEY:
            raise SettingsError(
                [f"KIKI_WITNESS_KEY is a key of type {self.key.kind:#04x}; a witness cosigns with one of type 0x04"]
            )
        self._url = url.rstrip("/") + "/add-checkpoint"

    def cosign(self, note: bytes, old: int, proof: Proof) -> Signature:
        """The witness' cosignature, verified, over the checkpoint in a signed note.

        `old` is the size that the witness is thought to know; it says so itself when that is wrong. Raises
        `AnchorUnavailable` for what may pass, and `CheckpointInvalid` for what somebody has to look at: the witness knows a
        tree that this one did not grow from, or its cosignature is not good.
        """
        text, _ = split_note(note)
        checkpoint = parse_checkpoint(text)
        old = min(old, checkpoint.size)
        for _ in range(_ATTEMPTS):
            answer = post(self._url, self._request(note, old, checkpoint.size, proof), "text/plain; charset=utf-8")
            if answer.status == 200:
                return self._cosignature(text, answer.body)
            if answer.status != 409:
                raise self._refusal(answer, checkpoint)
            old = self._known_size(answer, old, checkpoint)
        raise AnchorUnavailable(f"the witness {self.key.name} keeps naming other sizes: does another process submit?")

    @staticmethod
    def _request(note: bytes, old: int, new: int, proof: Proof) -> bytes:
        hashes = proof(old, new)
        if len(hashes) > _PROOF_LINES:
            raise CheckpointInvalid(f"a witness takes at most {_PROOF_LINES} hashes of a proof, not {len(hashes)}")
        lines = "".join(f"{base64.b64encode(one).decode()}\n" for one in hashes)
        return f"old {old}\n{lines}\n".encode() + note

    def _known_size(self, answer: Answer, old: int, checkpoint: Checkpoint) -> int:
        found = _SIZE.fullmatch(answer.body) if answer.media_type == _SIZE_TYPE else None
        known = None if found is None else int(found[1])
        if known is not None and known > checkpoint.size:
            raise CheckpointInvalid(
                f"the witness {self.key.name} cosigned {known} entries of {checkpoint.origin}, and this ledger has "
                f"{checkpoint.size}: entries were lost",
                hint="was the ledger restored from a backup? Its last checkpoints are known outside: find what is missing, "
                "and do not go on under this chain without telling whoever relies on it",
            )
        if known is None or (known == old == checkpoint.size):
            raise CheckpointInvalid(
                f"the witness {self.key.name} cosigned another tree of {checkpoint.origin} with {old} entries: "
                "one of the two was rewritten",
                hint="keep both notes as evidence, and verify the ledger with `kiki audit verify`",
            )
        if known == old:
            raise AnchorUnavailable(f"the witness {self.key.name} refused {old} entries and named the same size")
        return known

    def _refusal(self, answer: Answer, checkpoint: Checkpoint) -> AnchorUnavailable | CheckpointInvalid:
        name, origin = self.key.name, checkpoint.origin
        if answer.status == 422:
            return CheckpointInvalid(
                f"the witness {name} does not find that {origin} with {checkpoint.size} entries grew from what it cosigned",
                hint="verify the ledger with `kiki audit verify`, and keep what the witness has as evidence",
            )
        hints = {
            403: f"register this log's verifier key with the witness: it trusts another one for {origin}",
            404: f"register the log {origin} with the witness",
            429: "it is asked too often",
        }
        return AnchorUnavailable(
            f"the witness {name} answered {answer.status} for {origin}", hint=hints.get(answer.status)
        )

    def _cosignature(self, text: str, body: bytes) -> Signature:
        try:
            lines = body.decode().splitlines()
        except UnicodeDecodeError:
            lines = []
        for line in lines:
            try:
                signature = parse_signature(line)
            except CheckpointInvalid:
                continue
            # Others may have signed too, with keys that nobody here knows; C2SP has them ignored.
            if self.key.made(signature):
                self.key.verify(text, signature)
                return signature._replace(verified=True)
        raise CheckpointInvalid(
            f"the witness answered without a cosignature of {self.key.name}",
            hint="is KIKI_WITNESS_KEY the key of the witness at KIKI_WITNESS_URL?",
        )
