"""docs/value.md says what the code does: its examples are run, its tables compared with the code."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from kiki.value.count_models import COUNT_MODELS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "value.md").read_text(encoding="utf-8")


def test_the_examples_print_what_stands_there():
    blocks = "\n".join(re.findall(r"^```pycon\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    examples = doctest.DocTestParser().get_doctest(blocks, {}, "docs/value.md", None, 0)
    assert len(examples.examples) > 5
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert "" == "".join(said)


def test_every_model_stands_in_the_table_with_its_parameters():
    rows = {
        name: re.split(r",\s*", parameters)
        for name, parameters in re.findall(r"^\| `([a-z-]+)` \| [^|]* \| ([^|]*) \|", PAGE, re.MULTILINE)
    }
    for name, model in COUNT_MODELS.items():
        assert list(model.NAMES) == [each for each in rows[name] if each in model.NAMES], name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", PAGE)) - {""}))
def test_links_lead_to_files_that_are_there(target: str):
    assert (ROOT / "docs" / target).exists(), target
