"""Every variable there is: what is documented, and what a `KIKI_…` name is checked against."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from kiki.settings.client import (
    CLIENT_VARIABLES,
    ENGAGE_CLIENT_VARIABLES,
    FLOW_CLIENT_VARIABLES,
    VALUE_CLIENT_VARIABLES,
)
from kiki.settings.engage_table import CONNECTOR_VARIABLES, ENGAGE_VARIABLES
from kiki.settings.flow_table import FLOW_VARIABLES
from kiki.settings.ledger_table import ARCHIVE_VARIABLES, DATABASE_VARIABLES, KEY_VARIABLES
from kiki.settings.listen_table import LISTEN_VARIABLES, OTEL_VARIABLES, UP_VARIABLES
from kiki.settings.shield_table import REDIS_VARIABLES, SHIELD_VARIABLES
from kiki.settings.value_table import VALUE_VARIABLES
from kiki.settings.variable import cut

VARIABLES: Final = (
    *LISTEN_VARIABLES,
    *UP_VARIABLES,
    *OTEL_VARIABLES,
    *SHIELD_VARIABLES,
    *KEY_VARIABLES,
    *DATABASE_VARIABLES,
    *ARCHIVE_VARIABLES,
    *REDIS_VARIABLES,
    *CLIENT_VARIABLES,
    *VALUE_VARIABLES,
    *VALUE_CLIENT_VARIABLES,
    *ENGAGE_VARIABLES,
    *CONNECTOR_VARIABLES,
    *ENGAGE_CLIENT_VARIABLES,
    *FLOW_VARIABLES,
    *FLOW_CLIENT_VARIABLES,
)
"""Every variable that some part of kiki reads: what is documented, and what a `KIKI_…` name is checked against."""


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A problem for each `KIKI_…` name that no part of kiki reads: a typo in a limit costs money."""
    known = [variable.name for variable in VARIABLES]
    ours = [name for name in known if name.startswith("KIKI_")]
    problems = []
    for name in sorted(environ):
        if name.upper().startswith("KIKI_") and name not in known:
            near = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.6)
            advice = f"did you mean {near[0]}?" if near else "no setting has a name like it; remove it"
            problems.append(f"{cut(name)}: unknown; {advice}")
    return problems
