"""What the chart renders: sound for every profile and cloud, the same twice, and true to the services and to the guide."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.chart_mutants import MUTANTS, spoilt
from kiki.chart.guards import contradictions
from kiki.chart.manifest import documents
from kiki.chart.pods import pods_of
from tests.deploy.renders import (
    AZURE,
    CHART,
    CLOUDS,
    GCP,
    PROFILES,
    ROOT,
    Engine,
    full,
    layers,
    named,
    profile,
)
from tests.deploy.rules import invalid, objections

MINORS = [f"1.{minor}" for minor in range(29, 38)]
ODD = {
    "no ingress, a gateway": ("prod", "ingress.enabled=false", "gateway.enabled=true", "gateway.namespace=gateways"),
    "a policy and a model": ("prod", "syncshield.policy=budgets: []", "syncvalue.model.existingClaim=models"),
    "anybody may come": ("prod", "networkPolicy.allowExternal=true", "ingress.enabled=false"),
    "telemetry off": ("prod", "otel.enabled=false"),
    "everything in the release": ("staging", "serviceMonitor.enabled=true", "clusterIssuer.create=true"),
    "only the shield": ("dev", "syncvalue.enabled=false", "syncflow.enabled=false", "syncengage.enabled=false"),
    "mail and SMS": ("prod", "syncengage.mailFrom=hello@kiki.io", "syncengage.smsFrom=+15551234567", "syncengage.playbooks.winback\\.yaml=name: x"),
    "a shop": ("prod", "syncengage.crm.provider=shopify", "syncengage.crm.url=kiki.myshopify.com"),
    "HubSpot": ("prod", "syncengage.crm.provider=hubspot"),
    "Salesforce": ("prod", "syncengage.crm.provider=salesforce", "syncengage.crm.url=https://kiki.my.salesforce.com"),
    "google's bucket": ("prod", *GCP, "audit.shipTo=gs://kiki-audits/"),
    "azure's bucket": ("prod", *AZURE, "audit.shipTo=az://kiki-audits/"),
    "nobody scaled": ("prod", "syncshield.autoscaling.enabled=false", "syncvalue.autoscaling.enabled=false", "syncengage.autoscaling.enabled=false"),
    "a monitored pod": ("dev", "syncshield.podLabels.team=money", "syncshield.tolerations[0].operator=Exists", "syncflow.extraSecrets={google-ads}"),
}  # fmt: skip


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("environment", PROFILES)
def test_every_profile_is_sound_on_every_cloud(environment: str, cloud: str, engine: Engine):
    found = engine.objects(json.loads(profile(environment, cloud)))
    assert objections(found, minor="1.29") == []
    assert [problem for one in found for problem in invalid(one, "1.37")] == []


@pytest.mark.parametrize("case", ODD)
def test_odd_values_are_sound_too(case: str, engine: Engine):
    environment, *sets = ODD[case]
    assert objections(engine.objects(layers(environment, *sets))) == []


@pytest.mark.parametrize("minor", MINORS)
def test_no_profile_is_linted_with_a_warning_on_any_minor(minor: str, engine: Engine):
    for environment in PROFILES:
        report = engine.ask(lint=f"v{minor}.0", chart=str(CHART), values=layers(environment))
        assert [one for one in report["messages"] if one["severity"] >= 2] == []


def test_a_second_render_is_the_same_to_the_byte(engine: Engine):
    other = Engine()
    try:
        assert engine.texts(layers("staging")) == other.texts(layers("staging"))
    finally:
        other.close()


def test_what_is_made_from_the_chart_is_as_it_would_be_made():
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "chart_files.py"), "--check"], capture_output=True, text=True, check=False, timeout=200)  # fmt: skip
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_the_guides_path_leads_to_the_chart():
    assert (ROOT / "helm" / "kiki").resolve() == CHART
    assert (ROOT / "helm" / "kiki" / "values-prod.yaml").is_file()
    tracked = subprocess.run(
        ["git", "ls-files", "-s", "helm/kiki"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.stdout:  # a link, so that a clone has it as well
        assert tracked.stdout.startswith("120000")


def test_the_wheel_carries_the_chart():
    project = (ROOT / "pyproject.toml").read_text()
    assert '"deploy/helm/kiki" = "kiki/chart/helm/kiki"' in project
    assert '"/deploy"' in project


def test_no_template_uses_what_helm_3_14_does_not_have():
    """An allow-list: every function that the templates call has been there since long before 3.14."""
    allowed = {
        "add", "and", "append", "base", "concat", "contains", "default", "define", "dict", "dig", "div", "else", "empty",
        "end", "eq", "fail", "first", "float64", "fromJsonArray", "fromYaml", "ge", "get", "gt", "has", "hasKey",
        "hasPrefix", "if", "include", "index", "int", "join", "kindIs", "last", "le", "len", "list", "lookup", "lt",
        "merge", "mul", "mulf", "ne", "nindent", "not", "or", "printf", "quote", "range", "regexFind", "regexFindAll",
        "regexReplaceAll", "replace", "set", "sha256sum", "splitList", "sub", "ternary", "toJson", "toYaml", "trim",
        "trimPrefix", "trimSuffix", "trunc", "until", "with"
    }  # fmt: skip
    used = set()
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            text = re.sub(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", "", path.read_text(), flags=re.DOTALL)
            for action in re.findall(r"\{\{-?(.*?)-?\}\}", text, re.DOTALL):
                bare = re.sub(r'"(?:\\.|[^"])*"|\$?\.[A-Za-z][\w.]*|\$[\w.]*', " ", action)
                used |= set(re.findall(r"\b[a-z][A-Za-z0-9]*\b", bare))
    assert used - allowed - {"true", "false"} == set()


SWITCHES = [
    *("redis.enabled", "postgres.enabled", "pdb.enabled", "otel.enabled", "otel.collector.deploy", "otel.jaeger.deploy", "ingress.enabled"),
    *("networkPolicy.enabled", "networkPolicy.allowExternal", "networkPolicy.allowDNS", "gateway.enabled", "clusterIssuer.create"),
    *("spread.enabled", "serviceMonitor.enabled", "prometheusRule.enabled", "dashboards.enabled", "externalSecrets.enabled", "redis.tls"),
    *("externalSecrets.aws.podIdentity", "serviceAccount.create", "syncshield.autoscaling.enabled", "syncengage.autoscaling.enabled"),
    *("syncvalue.autoscaling.enabled", "syncshield.enabled", "syncvalue.enabled", "syncflow.enabled", "syncengage.enabled"),
]  # fmt: skip
TEXTS = [
    *("audit.shipTo=", "audit.shipTo=gs://kiki-audits/", "audit.shipTo=az://kiki-audits/p", "redis.address=", "postgres.host="),
    *("redis.address=redis://a.b.svc.cluster.local:6380/2", "redis.address=redis+cluster://a:1\\,b:2", "otel.collector.endpoint="),
    *("postgres.host=pg.data.svc.cluster.local", "otel.collector.endpoint=https://otel.example.com:443", "pdb.minAvailable=1"),
    *("syncshield.replicaCount=1", "syncflow.replicaCount=1", "networkPolicy.monitoringNamespaces={}", "global.ingressClass=traefik"),
    *("ingress.issuer=", "syncvalue.model.existingClaim=m", "syncengage.crm.provider=hubspot", "syncengage.mailFrom=a@b.c"),
    *("drain.seconds=0", "drain.preStopSeconds=1", "global.imageRegistry=", "keys.existingSecret=mine", "syncshield.policy=budgets: []"),
]  # fmt: skip


@settings(max_examples=30)
@given(
    st.sampled_from(PROFILES),
    st.lists(st.tuples(st.sampled_from(SWITCHES), st.booleans()), max_size=9, unique_by=lambda pair: pair[0]),
    st.lists(st.sampled_from(TEXTS), max_size=5, unique_by=lambda text: text.partition("=")[0]),
    st.sampled_from([[], AZURE, GCP]),
)
def test_whatever_passes_is_sound_and_whatever_does_not_is_refused(environment, switches, texts, cloud):
    engine = Engine.shared()
    values = layers(environment, *(f"{key}={str(on).lower()}" for key, on in switches), *texts, *cloud)
    if contradictions(full(values)):
        assert engine.refusal(values)
    else:
        assert objections(engine.objects(values)) == []


# -- names and images --------------------------------------------------------------------------------

tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda tag: tag != "latest")
names = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+){0,2}", fullmatch=True)
references = st.builds(lambda name, tag: f"{name}:{tag}", names, tags) | st.builds(
    lambda name, digest: f"{name}@sha256:{digest}", names, st.text("0123456789abcdef", min_size=64, max_size=64)
)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(["", "team/", "ghcr.io/", "localhost/", "host:5000/", "host:5000/a/b/"]), references), min_size=4, max_size=4))  # fmt: skip
def test_the_registry_goes_before_names_that_have_none(images):
    engine = Engine.shared()
    values = layers("dev")
    for service, (prefix, reference) in zip(("syncshield", "syncvalue", "syncflow", "syncengage"), images, strict=True):
        values = {**values, service: {**values.get(service, {}), "image": prefix + reference}}
    found = {pod.owner.partition("/")[2]: pod.spec["containers"][0]["image"] for pod in pods_of(engine.objects(values))}
    for service, (prefix, reference) in zip(("syncshield", "syncvalue", "syncflow", "syncengage"), images, strict=True):
        own = prefix not in {"", "team/"}
        assert found[service] == ("" if own else "ghcr.io/your-org/kiki/") + prefix + reference


def test_the_namespace_is_where_helm_is_told_unless_a_value_says_so(engine: Engine):
    for namespace in ("kiki", "y", "1e3", "team-a"):
        found = engine.objects(layers("prod"), namespace=namespace)
        assert {one["metadata"]["namespace"] for one in found} == {namespace}
    assert {one["metadata"]["namespace"] for one in engine.objects(layers("prod", "global.namespace=money"))} == {
        "money"
    }


def test_an_account_that_was_made_first_is_not_made_again(engine: Engine):
    kinds = [one["kind"] for one in engine.objects(layers("prod", "serviceAccount.create=false"))]
    assert "ServiceAccount" not in kinds
    assert 'lookup "v1" "ServiceAccount"' in (CHART / "templates" / "serviceaccount.yaml").read_text()


def test_remote_names_are_legal_and_no_two_are_one(engine: Engine):
    legal = {"aws": r"[A-Za-z0-9/_+=.@-]{1,512}", "azure": r"[A-Za-z0-9-]{1,127}", "gcp": r"[A-Za-z0-9_-]{1,255}"}
    for cloud, sets in CLOUDS.items():
        found = [one for one in engine.objects(layers("prod", *sets)) if one["kind"] == "ExternalSecret"]
        assert [one["metadata"]["name"] for one in found] == [f"kiki-keys-{cloud}", f"kiki-secrets-{cloud}"]
        data = [item for one in found for item in one["spec"]["data"]]
        remote = [item["remoteRef"]["key"] for item in data]
        assert len(data) == len(set(remote)) == 13
        assert all(re.fullmatch(legal[cloud], name) for name in remote)
        wanted = {
            "aws": "kiki/prod/sendgrid_api_key",
            "azure": "kiki-prod-sendgrid-api-key",
            "gcp": "kiki-prod-sendgrid_api_key",
        }
        assert {item["secretKey"]: item["remoteRef"]["key"] for item in data}["SENDGRID_API_KEY"] == wanted[cloud]


# -- one change, one restart -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ("syncshield.maxBurstBudget=600", {"syncshield"}),
        ("syncflow.extraEnv.KIKI_RATE=5", {"syncflow"}),
        ("audit.shipTo=s3://other-bucket/", {"syncshield"}),
        ("ingress.rateLimitRps=20", {"syncshield", "syncengage"}),
        ("global.logLevel=debug", {"syncshield", "syncvalue", "syncflow", "syncengage"}),
        ("pdb.minAvailable=1", set()),
        ("ingress.burstMultiplier=5", set()),
        ("networkPolicy.allowExternal=true", set()),
        ("syncshield.autoscaling.maxReplicas=12", set()),
    ],
)
def test_a_change_restarts_the_pods_that_it_concerns_and_no_others(change: str, restarted: set[str], engine: Engine):
    before, after = (engine.objects(layers("prod", *sets)) for sets in ([], [change]))
    templates = [
        {
            one["metadata"]["name"]: one["spec"]["template"]
            for one in found
            if one["kind"] in {"Deployment", "StatefulSet"}
        }
        for found in (before, after)
    ]
    assert {name for name in templates[0] if templates[0][name] != templates[1][name]} == restarted


def test_a_changed_setting_is_another_configmap(engine: Engine):
    before, after = (
        {one["metadata"]["name"] for one in engine.objects(layers("prod", *sets)) if one["kind"] == "ConfigMap"}
        for sets in ([], ["syncshield.windowSeconds=3600"])
    )
    assert len(before ^ after) == 2


# -- state -------------------------------------------------------------------------------------------


def test_with_a_database_the_csv_lies_on_the_pods_own_disk(renders):
    shield = named(renders["prod"], "Deployment", "syncshield")["spec"]["template"]["spec"]
    (volume,) = [one for one in shield["volumes"] if one["name"] == "audit-logs"]
    assert volume["emptyDir"] == {"sizeLimit": "5Gi"}
    assert not [one for one in renders["prod"] if one["kind"] == "PersistentVolumeClaim"]


def test_without_one_it_lies_on_a_claim_that_one_pod_holds(renders, engine: Engine):
    shield = named(renders["dev"], "Deployment", "syncshield")["spec"]
    assert (shield["replicas"], shield["strategy"]) == (1, {"type": "Recreate"})
    assert named(renders["dev"], "PersistentVolumeClaim", "syncshield-audit-logs")["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]
    notes = engine.texts(layers("dev"))["kiki/templates/NOTES.txt"]
    assert "WITHOUT POSTGRESQL" in notes
    assert "WITHOUT POSTGRESQL" not in engine.texts(layers("prod"))["kiki/templates/NOTES.txt"]


def test_secrets_that_somebody_must_make_are_told_by_name(engine: Engine):
    notes = engine.texts(layers("dev"))["kiki/templates/NOTES.txt"]
    assert "kiki-keys: kiki_master_key, kiki_tokens, kiki_shield_token" in notes
    assert "kiki-runtime-secrets: REDIS_PASSWORD" in notes
    assert "POSTGRES_PASSWORD" not in notes
    own = engine.texts(layers("dev", "postgres.enabled=true", "postgres.passwordSecret=pg"))["kiki/templates/NOTES.txt"]
    assert "pg: POSTGRES_PASSWORD" in own
    assert "REDIS_PASSWORD" not in engine.texts(layers("prod"))["kiki/templates/NOTES.txt"]


def test_a_placeholder_that_was_left_is_told(engine: Engine):
    notes = engine.texts(layers("prod", "redis.address=redis.kiki.io:6379"))["kiki/templates/NOTES.txt"]
    assert "postgres.host IS STILL THE PROFILE'S PLACEHOLDER" in notes
    assert "redis.address IS STILL" not in notes


def test_flows_runners_keep_their_names_and_are_never_scaled(renders):
    flow = named(renders["prod"], "StatefulSet", "syncflow")["spec"]
    environ = {entry["name"]: entry.get("value") for entry in flow["template"]["spec"]["containers"][0]["env"]}
    assert environ["KIKI_FLOW_EXECUTOR"] == "$(POD_NAME)"
    scaled = [one["metadata"]["name"] for one in renders["prod"] if one["kind"] == "HorizontalPodAutoscaler"]
    assert scaled == ["syncengage-hpa", "syncshield-hpa", "syncvalue-hpa"]


def test_both_selectors_and_claims_stay_as_they_were_released(renders):
    """Selectors, service names and claim templates cannot be changed in a cluster: another word breaks every upgrade."""
    kept = {
        (one["kind"], one["metadata"]["name"]): (one["spec"]["selector"], one["spec"].get("serviceName"))
        for one in renders["staging"]
        if one["kind"] in {"Deployment", "StatefulSet"}
    }
    wanted = {
        **{
            ("Deployment", name): None for name in ("syncshield", "syncvalue", "syncengage", "otel-collector", "jaeger")
        },
        ("StatefulSet", "syncflow"): "syncflow-runners",
        ("StatefulSet", "redis"): "redis",
        ("StatefulSet", "postgres"): "postgres",
    }
    assert kept == {key: ({"matchLabels": {"app": key[1]}}, service) for key, service in wanted.items()}


def test_documents_are_told_apart_and_put_in_order():
    text = "# Source: x\napiVersion: v1\nkind: Service\nmetadata:\n  name: b\n---\nkind: NetworkPolicy\nmetadata:\n  name: a\n---\n# nothing\n"
    assert [(one.kind, one.name) for one in documents([text])] == [("NetworkPolicy", "a"), ("Service", "b")]


def test_the_tests_pod_asks_every_service(renders):
    test = named(renders["prod"], "Pod", "kiki-test")
    asked = test["spec"]["containers"][0]["args"]
    assert asked == [
        "http://syncshield:80/readyz",
        "http://syncshield:8081/health",
        "http://syncvalue:9051/health",
        "http://syncflow:80/readyz",
        "http://syncflow:8082/health",
        "http://syncengage:80/readyz",
        "http://syncengage:8083/health",
    ]


# -- one line spoilt ---------------------------------------------------------------------------------


def test_every_mutant_of_the_bench_is_one():
    for template, text, instead in MUTANTS:
        assert text in (CHART / "templates" / template).read_text(), (template, text)
        assert text != instead
    assert len(MUTANTS) >= 60


def test_a_sample_of_spoilt_charts_is_noticed(engine: Engine):
    """bench/chart_mutants.py spoils every line; here each ninth."""
    assert [mutant for mutant, found in spoilt(engine, MUTANTS[::9]) if not found] == []
