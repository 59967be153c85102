"""The idempotency key of a write: the same for the guard, the platform and the record. Pure.

It names the plan, its version, the step and the attempt, and nothing else: not the run's epoch, not the time, not the
runner. So a step that is done again after a crash or a takeover is the same write. `attempt` advances only when the
attempt before was settled as refused.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

KEY_LENGTH: Final = 32


def write_key(run: str, version: str, step: str, attempt: int) -> str:
    """32 hexadecimal digits."""
    return sha256("\0".join(("kiki.flow", run, version, step, str(attempt))).encode()).hexdigest()[:KEY_LENGTH]
