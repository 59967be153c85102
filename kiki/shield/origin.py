"""Where a call came from: coarse in clear, exact only sealed. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

from kiki.shield.network import coarsened

AGENT_LENGTH_MAX = 256


class Origin(NamedTuple):
    """A caller's address and agent."""

    network: str
    """The address coarsened to a /24 or /48; empty when there is none."""
    text: bytes
    """What is sealed: MessagePack of {"ip": …, "agent": …}."""


@lru_cache(4096)
def origin_of(ip: str, agent: str) -> Origin:
    """The origin of a call from `ip` by `agent`."""
    # A header need not be text: bytes that are no UTF-8 come as what no encoding can hold.
    readable = agent[:AGENT_LENGTH_MAX].encode("utf-8", "backslashreplace").decode()[:AGENT_LENGTH_MAX]
    return Origin(coarsened(ip), msgspec.msgpack.encode({"ip": ip, "agent": readable}))


def read_origin(text: bytes) -> dict[str, str]:
    """What `Origin.text` holds, after it was opened."""
    return msgspec.msgpack.decode(text, type=dict[str, str])
