"""docs/api.md says what the service does: its examples are run as typed, its tables compared with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kiki import errors
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.service import ShieldService
from kiki.web import refusals
from kiki.web.refusals import status_of
from tests.acceptance.serving import shield_in

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text(encoding="utf-8") for name in ("api.md", "api-compliance.md")}
TEXT = "\n".join(PAGES.values())


def examples(page: str) -> list[tuple[str, str]]:
    """Commands with the output that stands under them."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGES[page], re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_say_what_they_say(page: str, tmp_path):
    """In order, in one shell, on a fresh service."""
    wanted = examples(page)
    assert len(wanted) > 20
    with shield_in(tmp_path) as shield:
        script = "alias curl='curl -s'\nshopt -s expand_aliases\n"
        script += "".join(f"{command}\nprintf '\\n--end--\\n'\n" for command, _ in wanted)
        script = script.replace("localhost:8081", f"localhost:{shield.port}")
        done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=200, check=True)
    said = [part.strip() for part in done.stdout.split("--end--\n")][:-1]
    assert len(said) == len(wanted)
    for (command, output), found in zip(wanted, said, strict=True):
        pattern = ".*".join(re.escape(part) for part in output.split("…"))
        assert re.fullmatch(pattern, found), f"{command}\n{found}"


async def test_the_table_of_routes_is_complete():
    """Each route with its methods and the role that it asks for."""
    service = ShieldService(BudgetGuard.open(limit="1")).service()
    served = {
        (method, route.path, "link" if route.self_proving else route.role)
        for route in service.routes
        for method in route.methods
        if route.path.startswith("/v1/")
    }
    assert set(re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \| (\w+) \|", TEXT, re.MULTILINE)) == served
    await service.on_close()


def test_the_table_of_errors_is_right():
    """Every code has the status that it is listed under."""
    kinds = {
        kind.code: kind
        for module in (errors, refusals)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, errors.KikiError)
    }
    rows = re.findall(r"^\| (\d{3}) \| (`.*?`) \|", TEXT, re.MULTILINE)
    listed = {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert len(listed) > 20
    found = {code: status_of(kinds[code].__new__(kinds[code])) for code in listed}
    assert found == listed


def test_every_reason_is_named():
    paragraph = re.search(r"`reason` of a refusal is one of (.*?)\n\n", TEXT, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", paragraph)) == {reason.value for reason in Reason}
