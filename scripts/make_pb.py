"""Make kiki/value/pb from protos/: `python scripts/make_pb.py [DIRECTORY]`, the directory being kiki/value/pb by default.

No file of protos/ imports another one, so each generated module stands alone and needs no folders of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"


def make(target: Path) -> None:
    """Write the modules of all protos into this directory; raises `SystemExit` when one of them is wrong."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as made:
        code = protoc.main(["protoc", f"-I{PROTOS}", f"--python_out={made}", f"--pyi_out={made}", *sources])
        if code:
            raise SystemExit(code)
        for path in sorted(Path(made).rglob("*_pb2.py*")):
            (target / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "kiki" / "value" / "pb")
