"""The published schema of a plan: it is the committed file, and it says what the reader takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from kiki.errors import PlanError
from kiki.flow.plan_schema import plan_schema
from kiki.flow.plan_text import parse_plan
from tests.flow.plans import SPRING

FILE = Path(__file__).parents[2] / "docs" / "campaign.schema.json"
VALID = jsonschema_rs.validator_for(plan_schema())


def fits(text: str) -> bool:
    class Loader(yaml.SafeLoader):
        """Dates are text, as YAML 1.2 and the editors have it."""

    Loader.yaml_implicit_resolvers = {
        letter: [each for each in found if each[0] != "tag:yaml.org,2002:timestamp"]
        for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return VALID.is_valid(yaml.load(text, Loader))


def test_the_published_schema_is_the_one_of_this_version():
    assert plan_schema() == json.loads(FILE.read_text())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("plan: spring-sale", "plan: spring-sale"),
        ("$1,000.00/day", "1000 USD / day"),
        ("bid: $1.20", "bid: automatic"),
        ("bid: $1.20", "bid: 1.20"),
        ("platform: google_ads", "platform: google_ads_smart"),
        ("$20,000.00 total", "20000 in total"),
        ("objective: sales", "scopes: {team: brand}"),
    ],
)
def test_what_the_reader_takes_the_schema_takes(old: str, new: str):
    text = SPRING.replace(old, new, 1)
    assert parse_plan(text)
    assert fits(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("plan: spring-sale", "name: spring-sale"),
        ("budget: $20,000.00 total", "budgte: $20,000.00 total"),
        ("$1,000.00/day", "$1,000.00"),
        ("$1,000.00/day", "much/day"),
        ("platform: google_ads", "platform: bing"),
        ("objective: sales", "objective: fame"),
        ("starts: 2026-12-01", "starts: soon"),
        ("[US, CA]", "[us]"),
        ("[mon, tue, wed, thu, fri]", "[monday]"),
        ("consent: targeting", "consents: targeting"),
        ("ltv: 30%", "ltv: 30"),
        ("bound: lower", "bound: middle"),
        ("team: growth", "campaign: growth"),
        ("objective: sales", "scopes: {platform: meta}"),
        ("currency: USD", "currency: dollars"),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses(old: str, new: str):
    text = SPRING.replace(old, new, 1)
    assert text != SPRING
    assert not fits(text)
    with pytest.raises(PlanError):
        parse_plan(text)


def test_every_part_says_what_it_is():
    def undescribed(part: Any, where: str) -> list[str]:
        if not isinstance(part, dict):
            return []
        found = [] if part.get("description") or part.get("type") in {"object", "array"} or "const" in part else [where]
        for name, each in part.get("properties", {}).items():
            found += undescribed(each, f"{where}.{name}")
        return found

    whole = plan_schema()
    parts = [whole, whole["properties"]["campaigns"]["items"]]
    assert [] == [name for part in parts for name in undescribed(part, "plan")]
