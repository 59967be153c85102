"""Where the chart lies: inside the installed package, or at the top of a working copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kiki.errors import ChartError

_PACKAGED = Path(__file__).parent / "helm" / "kiki"
_WORKING_COPY = Path(__file__).parents[2] / "deploy" / "helm" / "kiki"


def chart_directory() -> Path:
    """The directory of the chart; raises `ChartError` when there is none."""
    for place in (_PACKAGED, _WORKING_COPY):
        if (place / "Chart.yaml").is_file():
            return place
    raise ChartError(f"the chart is neither in {_PACKAGED} nor in {_WORKING_COPY}", hint="install kiki again")


def chart_schema() -> dict[str, Any]:
    """values.schema.json."""
    schema: dict[str, Any] = json.loads((chart_directory() / "values.schema.json").read_text(encoding="utf-8"))
    return schema
