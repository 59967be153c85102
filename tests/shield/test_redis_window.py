from __future__ import annotations
from dataclasses import dataclass
@dataclass(frozen=True)
class At:
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    cluster: bool = False
    username: str | None = None
    password: object = None
    db: int = 0
    is_loopback: bool = True

    @classmethod
    def of(cls, server, **options):
        return cls(((server.host, server.port),), **options)
