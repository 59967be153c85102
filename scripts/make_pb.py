"""Make kiki/value/pb and kiki/flow/pb from protos/: `python scripts/make_pb.py [DIRECTORY]`, for all of them in one place.

No file of protos/ imports another one, so each generated module stands alone and needs no folders of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"


HOMES = {"syncflow_pb2": ROOT / "kiki" / "flow" / "pb"}
"""Modules that belong to another package than kiki.value."""


def home_of(module: str) -> Path:
    """The directory that a generated module is kept in."""
    return HOMES.get(module, ROOT / "kiki" / "value" / "pb")


def make(target: Path | None = None) -> None:
    """Write the modules of all protos into this directory, or each where it is kept; raises `SystemExit` for a wrong one."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as made:
        code = protoc.main(["protoc", f"-I{PROTOS}", f"--python_out={made}", f"--pyi_out={made}", *sources])
        if code:
            raise SystemExit(code)
        for path in sorted(Path(made).rglob("*_pb2.py*")):
            home = target or home_of(path.name.partition(".")[0])
            (home / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
