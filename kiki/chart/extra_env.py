"""Settings that values name themselves, `syncX.extraEnv`: a service that is told nonsense ends, so it is told before.

The chart cannot know these names; a release with a wrong one is refused by its pods, and rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kiki.chart.guards import COMPONENTS
from kiki.settings import VARIABLES, unknown_names

_BY_NAME: Final = {variable.name: variable for variable in VARIABLES}


def mistyped(values: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each name that nothing reads and each value that cannot be read; the values fit the schema."""
    for service in COMPONENTS:
        given = {name: _text(value) for name, value in values[service]["extraEnv"].items()}
        yield from (f"{service}.extraEnv.{problem}" for problem in unknown_names(given))
        for name in given.keys() & _BY_NAME.keys():
            try:
                _BY_NAME[name].read(given)
            except ValueError as error:
                yield f"{service}.extraEnv.{error}"


def _text(value: object) -> str:
    """As the chart writes it into a ConfigMap."""
    return value if isinstance(value, str) else json.dumps(value)
