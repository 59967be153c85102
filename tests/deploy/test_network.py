"""Who reaches whom, computed from the rendered policies."""

from __future__ import annotations

import re

import pytest

from tests.deploy.reachability import table
from tests.deploy.renders import GCP, ROOT, Engine, layers


@pytest.mark.parametrize("environment", ["prod", "staging"])
def test_who_reaches_whom_is_what_the_page_says(environment: str, renders):
    page = (ROOT / "docs" / "deploy" / "network.md").read_text()
    block = re.search(rf"```reachability {environment}\n(.*?)\n```", page, re.DOTALL)
    assert block is not None
    assert block[1].splitlines() == table(renders[environment])


def test_allowing_the_outside_opens_the_public_ports_alone(engine: Engine):
    closed = set(table(engine.objects(layers("prod"))))
    opened = set(table(engine.objects(layers("prod", "networkPolicy.allowExternal=true"))))
    assert closed - opened == {
        "the ingress controller -> syncengage: 9083",
        "the ingress controller -> syncshield: 9081",
        "the ingress controller -> cert-manager's solver: 8089",
    }
    assert {line.partition(": ")[2] for line in opened - closed} == {"9081", "9083", "8089"}
    assert "the internet -> syncshield: 9081" in opened


def test_the_metadata_server_is_for_googles_bucket_alone(engine: Engine):
    found = engine.objects(layers("prod", *GCP, "audit.shipTo=gs://kiki-audits/"))
    assert [line for line in table(found) if "metadata" in line] == ["syncshield -> the metadata address: 80, 988"]


def test_other_link_local_addresses_are_reached_where_a_value_says_so(engine: Engine):
    found = engine.objects(
        layers("prod", "externalSecrets.aws.podIdentity=true", "networkPolicy.dnsCIDRs={169.254.20.10/32}")
    )
    lines = [line for line in table(found) if "agent" in line or "cache" in line]
    assert lines.pop(lines.index("syncshield -> the agent of Pod Identity: 80"))
    assert {line.partition(" -> ")[2] for line in lines} == {"a DNS cache on the node: 53/UDP, 53"}
    assert len(lines) == 5


def test_without_dns_nobody_asks_it(engine: Engine):
    assert not [line for line in table(engine.objects(layers("prod", "networkPolicy.allowDNS=false"))) if "DNS" in line]


def test_a_challenge_is_answered_where_a_certificate_is_fetched_and_nowhere_else(engine: Engine):
    def asked(*sets: str) -> list[str]:
        return [line for line in table(engine.objects(layers("prod", *sets))) if "solver" in line]

    assert asked() == ["the ingress controller -> cert-manager's solver: 8089"]
    assert asked("ingress.issuer=") == []
    assert asked("ingress.enabled=false") == []
    assert asked("ingress.enabled=false", "gateway.enabled=true") == asked()
    assert asked("ingress.enabled=false", "gateway.enabled=true", "gateway.namespace=gateways") == []


@pytest.mark.parametrize("around", ["0.0.0.0/0", "128.0.0.0/1", "160.0.0.0/3", "169.0.0.0/8", "169.128.0.0/9"])
def test_no_range_of_addresses_brings_the_metadata_server_along(engine: Engine, around: str):
    found = engine.objects(layers("prod", f"networkPolicy.httpsCIDRs={{{around}}}"))
    assert [line for line in table(found) if "metadata" in line or "agent" in line] == []


def test_a_range_without_link_local_addresses_has_no_hole(engine: Engine):
    """The API server refuses a hole that is not inside its range."""
    for around in ("0.0.0.0/1", "170.0.0.0/8", "169.0.0.0/9", "10.0.0.0/8", "203.0.113.7/32", "2000::/3"):
        found = engine.objects(layers("prod", f"networkPolicy.httpsCIDRs={{{around}}}"))
        blocks = [
            peer["ipBlock"]
            for one in found if one["kind"] == "NetworkPolicy"
            for rule in one["spec"].get("egress") or []
            for peer in rule["to"] if peer.get("ipBlock", {}).get("cidr") == around
        ]  # fmt: skip
        assert blocks
        assert all("except" not in block for block in blocks)
    (hole,) = {
        str(peer["ipBlock"]["except"])
        for one in engine.objects(layers("prod", "networkPolicy.httpsCIDRs={::/0}")) if one["kind"] == "NetworkPolicy"
        for rule in one["spec"].get("egress") or []
        for peer in rule["to"] if peer.get("ipBlock", {}).get("cidr") == "::/0"
    }  # fmt: skip
    assert hole == "['fe80::/10']"
