"""Values as people write them: merged as Helm merges, every mistake named, nothing dead and nothing unknown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kiki.chart import guards, schema, values_text
from kiki.chart.layers import ENVIRONMENTS, read_layers, with_defaults
from kiki.chart.place import chart_schema
from kiki.chart.set_expression import BadExpression, parse_set
from kiki.chart.values import at, coalesce, overlay
from kiki.errors import ValuesError
from tests.deploy.renders import (
    AZURE,
    GCP,
    Engine,
    full,
    layers,
    leaves,
    put,
)

SCHEMA = chart_schema()
DEFAULTS = full({})

# -- merging -----------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.text("xyz", max_size=3)
    | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(names, trees, max_size=3)


@given(maps, maps)
def test_the_upper_layer_wins_and_the_rest_stays(under, over):
    merged = overlay(under, over)
    assert overlay(under, {}) == under
    for key in {**under, **over}:
        if key not in over:
            assert merged[key] == under[key]
        elif not (isinstance(under.get(key), dict) and isinstance(over[key], dict)):
            assert merged[key] == over[key]
        else:
            assert merged[key] == overlay(under[key], over[key])


@settings(max_examples=40)
@given(maps, maps)
def test_values_meet_defaults_as_in_helm(tmp_path_factory, defaults, given_values):
    """Helm's own merge is the judge; a null in a chart's defaults is another matter, and ours have none."""
    bare = json.loads(json.dumps(defaults), object_hook=lambda one: {k: v for k, v in one.items() if v is not None})
    chart = tmp_path_factory.mktemp("chart")
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 0.1.0\n")
    (chart / "values.yaml").write_text(json.dumps(bare))
    (chart / "templates").mkdir()
    (chart / "templates" / "values.txt").write_text("{{ .Values | toJson }}")
    # A mapping over what is none, or the other way round, is a warning to Helm and a mistake to our schema.
    assume(not clash(bare, given_values))
    answer = Engine.shared().ask(chart=str(chart), values=given_values, namespace="kiki")
    assert json.loads(answer["x/templates/values.txt"]) == coalesce(bare, given_values)


def clash(defaults: dict[str, Any], given_values: dict[str, Any]) -> bool:
    for key, value in given_values.items():
        default = defaults.get(key)
        if value is None or default is None:
            continue
        if isinstance(default, dict) != isinstance(value, dict):
            return True
        if isinstance(default, dict) and clash(default, value):
            return True
    return False


def keys_of(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every key of a mapping, and of those in it, dotted."""
    for key, value in values.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{path}{key}.")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_null_in_the_place_of_any_key_is_read(environment: str):
    """It is taken, or contradicts something; the templates then say what Helm would."""
    keys = list(keys_of(with_defaults(read_layers(environment, [], []))))
    assert len(keys) > 100
    for key in keys:
        with contextlib.suppress(ValuesError):
            read_layers(environment, [], [f"{key}=null"])


@given(maps)
def test_a_null_takes_a_default_away_and_nothing_else_does(given_values):
    defaults = {"a": {"b": 1}, "b": 2, "c": [3]}
    seen = coalesce(defaults, given_values)
    for key in defaults:
        assert (key in seen) == (key not in given_values or given_values[key] is not None)


@pytest.mark.parametrize(
    "expression",
    [
        "a=1", "a.b=true", "a=x\\,y", "a\\.b=c", "a={x,y}", "a[0]=1", "a[1].b=2", "a=null", "a=-3", "a=007", "a=1.5", "a=",
        "a=b=c", "a=1,b=2", "a.b=1,a.c=2", "a=TRUE", "a={1,true,x}", "a.b[0]=x,a.b[1]=y", 'a="q"', "a=1\\,2,b=3", "a[0][1]=3",
    ],
)  # fmt: skip
def test_set_is_read_as_helm_reads_it(expression: str, engine: Engine):
    assert parse_set(expression) == engine.ask(set=expression)


@pytest.mark.parametrize("expression", ["a", "=1", "a={1", ".=1", "[0]=1", "a[99999]=1"])
def test_an_expression_that_sets_nothing_is_refused(expression: str):
    with pytest.raises(BadExpression):
        parse_set(expression)


@given(st.text("ab.,=[]{}\\01 ", max_size=12))
def test_no_expression_breaks_the_reader(expression: str):
    with contextlib.suppress(BadExpression):
        assert isinstance(parse_set(expression), dict)


def test_what_is_set_goes_over_files_and_files_over_the_profile(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("syncshield: {image: 'syncshield:v2'}\nsyncflow: {image: 'syncflow:v2'}\n")
    two.write_text("syncflow: {image: 'syncflow:v3'}\n")
    merged = read_layers("prod", [one, two], ["syncvalue.image=syncvalue:v4", "syncvalue.image=syncvalue:v5"])
    found = [at(merged, f"{name}.image") for name in ("syncshield", "syncflow", "syncvalue")]
    assert found == ["syncshield:v2", "syncflow:v3", "syncvalue:v5"]
    assert at(merged, "syncshield.replicaCount") == 3


# -- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: no\n", "values.yaml:1: no is true or false to some"),
        ("a: 1\nb: 0123\n", "values.yaml:2: '0123' is a number to some"),
        ("a: 1_000\n", "is a number to some"),
        ("a: 1:30\n", "is a number to some"),
        ("a: 1\na: 2\n", "values.yaml:2: the key 'a' comes twice"),
        ("- a\n", "values.yaml:1: expected a mapping of values"),
        ("a: [\n", "the text is not YAML"),
        ("a: !!python/object:os.system x\n", "the tag"),
        ("a: {b: 1}\n---\nc: 1\n", "a second document begins"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n", "the merge key"),
        ("[a]: 1\n", "is no key"),
    ],
)
def test_what_has_two_meanings_or_none_is_refused_by_its_line(text: str, words: str):
    _, problems = values_text.parse(text, "values.yaml")
    assert any(words in problem for problem in problems), problems


@given(st.recursive(st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3), max_leaves=10).filter(lambda v: isinstance(v, dict)))  # fmt: skip
def test_what_yaml_writes_is_read_back(value):
    text = yaml.safe_dump(value, allow_unicode=False)
    found, problems = values_text.parse(text, "values.yaml")
    assert problems or found == value  # a control character may be refused, never be misread
    assert not problems or "U+" in problems[0] or "not YAML" in problems[0]


def test_aliases_that_multiply_are_stopped():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    _, problems = values_text.parse("\n".join(lines), "values.yaml")
    assert any("too many values" in problem for problem in problems)


# -- the schema --------------------------------------------------------------------------------------


JUNK = [
    None,
    True,
    -1,
    0,
    1,
    1.5,
    10**12,
    "",
    "x",
    "1",
    "no way!",
    "a:latest",
    "a\n",
    [],
    ["x"],
    [{}],
    {},
    {"x": 1},
    {"x": "y"},
]


@pytest.mark.parametrize("path", leaves(DEFAULTS), ids=".".join)
def test_the_schema_is_read_as_jsonschema_reads_it(path: tuple):
    """Every key with every kind of junk: the same yes or no, and a sentence that begins with the key."""
    judge = jsonschema.Draft7Validator(SCHEMA)
    for junk in JUNK:
        values = put(DEFAULTS, path, junk)
        found = schema.problems(values, SCHEMA)
        # Python's `$` admits a line end at the end of a text; Go's does not, nor do we.
        if not (isinstance(junk, str) and junk.endswith("\n")):
            assert (not found) == judge.is_valid(values), (junk, found)
        assert all(problem.startswith(".".join(path)) for problem in found)


@pytest.mark.parametrize("path", sorted({leaf[:depth] for leaf in leaves(DEFAULTS) for depth in range(len(leaf))}), ids=".".join)  # fmt: skip
def test_an_unknown_key_is_refused_wherever_it_stands(path: tuple, engine: Engine):
    own = at(DEFAULTS, ".".join(path)) if path else DEFAULTS
    values = put({}, (*path, "unknownKey"), 1)
    found = schema.problems(full(values), SCHEMA)
    free = schema_at(path).get("additionalProperties", True)
    if own and free is False:
        assert any("unknownKey: unknown" in problem for problem in found), found
        assert "unknownKey" in engine.refusal(overlay(layers("dev"), values))
    else:
        assert free is not True, "an open mapping"


def schema_at(path: tuple) -> dict[str, Any]:
    here = SCHEMA
    for part in path:
        here = here["properties"][part]
    return here


@pytest.mark.parametrize("key", ["synccreate", "admin-api", "rest-api", "web"])
def test_keys_of_services_that_are_gone_are_refused_with_their_reason(key: str, engine: Engine):
    found = schema.problems(full({key: {"enabled": True}}), SCHEMA)
    assert [problem.partition(";")[0] for problem in found] == [f"{key}: superseded"]
    assert key in engine.refusal(overlay(layers("dev"), {key: {"enabled": True}}))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("syncshield.image=syncshield", "syncshield.image: expected name:tag"),
        ("syncshield.image=syncshield:latest", "syncshield.image: expected name:tag"),
        ("syncshield.replicaCount=many", "syncshield.replicaCount: expected a whole number"),
        ("syncshield.replicaCount=0", "expected a number from 1 to 100"),
        ("syncshield.windowSeconds=1h", "expected seconds, for example 60"),
        ("externalSecrets.refreshInterval=1", "expected a duration, for example 30s or 1h"),
        ("externalSecrets.refreshInterval=soon", "expected a duration"),
        ("serviceMonitor.interval=1 hour", "expected a duration"),
        ("externalSecrets.provider=vault", "expected aws or azure or gcp"),
        ("redis.address=redis://:secret@host:6379", "without a password"),
        ("syncshield.extraEnv.SENDGRID_API_KEY=x", "secrets come from Secrets"),
        ("audit.shipTo=kiki-audits", "expected s3://bucket/"),
        ("otel.samplingRate=2", "expected a number from 0 to 1"),
        ("networkPolicy.httpsCIDRs={}", "expected at least 1 item"),
        ("otel.collector.endpoint=collector", "expected host:port"),
        ("syncshield.podLabels.app=syncvalue", "a label's name that the chart does not write itself"),
        (r"syncflow.podLabels.app\.kubernetes\.io/part-of=x", "a label's name that the chart does not write itself"),
        ("syncshield.resources.limits.memory=lots", "expected a size, for example 512Mi"),
    ],
)
def test_a_value_that_is_wrong_says_what_is_accepted(expression: str, words: str, engine: Engine):
    with pytest.raises(ValuesError) as caught:
        read_layers("prod", [], [expression])
    assert any(words in problem for problem in caught.value.problems), caught.value.problems
    assert engine.refusal(layers("prod", expression))


# -- contradictions ----------------------------------------------------------------------------------

CONTRADICTIONS = [
    (None, []),
    (None, ["keys.existingSecret=k", "syncshield.replicaCount=2"]),
    (None, ["keys.existingSecret=k", "syncflow.replicaCount=3", "syncengage.autoscaling.enabled=true"]),
    (None, ["keys.existingSecret=k", "syncvalue.replicaCount=3", "postgres.enabled=true", "syncshield.replicaCount=2"]),
    ("dev", ["syncshield.pdb.minAvailable=1"]),
    ("prod", ["syncshield.pdb.minAvailable=3"]),
    ("prod", ["syncflow.pdb.minAvailable=2", "syncvalue.pdb.minAvailable=9"]),
    ("prod", ["syncshield.autoscaling.minReplicas=9", "syncshield.autoscaling.maxReplicas=4"]),
    ("prod", ["externalSecrets.region="]),
    ("prod", ["externalSecrets.provider=azure"]),
    ("prod", ["externalSecrets.provider=gcp"]),
    ("prod", [*AZURE, "externalSecrets.azure.tenantId="]),
    ("prod", [*GCP, "externalSecrets.gcp.clusterName="]),
    ("prod", ["externalSecrets.enabled=false"]),
    ("prod", ["otel.collector.endpoint="]),
    ("prod", ["ingress.tls[0].secretName=t,ingress.tls[0].hosts={shield.kiki.io}"]),
    ("prod", ["syncshield.enabled=false"]),
    ("prod", ["syncengage.crm.provider=shopify"]),
    ("prod", ["redis.enabled=true", "postgres.enabled=true"]),
    ("dev", ["otel.collector.deploy=true"]),
    ("prod", ["otel.jaeger.deploy=true"]),
    ("prod", ["clusterIssuer.create=true", "ingress.issuer="]),
    ("dev", ["syncengage.mailFrom=a@b.c", "syncengage.smsFrom=+15551234567"]),
    ("prod", ["syncengage.crm.url=shop.example.com"]),
    *(("dev", [f"{service}.extraEnv.{name}=1" for name in guards.OWN_SETTINGS]) for service in guards.COMPONENTS),
]

MAY_DIFFER = {
    # Nothing else in the release goes by these; or it is there to be reached elsewhere, or where the chart's own part is not used.
    *("KIKI_LOG_LEVEL", "KIKI_BODY_BYTES_MAX", "KIKI_PUBLIC_RATE", "MAX_BURST_BUDGET", "WINDOW_SECONDS", "RETENTION_DAYS"),
    *("KIKI_VALUE_MODEL", "KIKI_VALUE_ANONYMOUS", "SHIELD_URL", "LTV_GRPC_ADDR", "KIKI_ENGAGE_PUBLIC_URL", "AWS_REGION"),
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"),
    *("KIKI_POLICY_FILE", "KIKI_ENGAGE_PLAYBOOKS"),
}  # fmt: skip


def test_every_setting_that_the_chart_writes_may_differ_or_is_refused(engine: Engine):
    """A port that is another than its probe's is a service that never gets ready."""
    written = set()
    for one in engine.objects(layers("prod")):
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("kiki-config-"):
            written |= one["data"].keys()
        if one["kind"] in {"Deployment", "StatefulSet"} and one["metadata"]["name"] in guards.COMPONENTS:
            (container,) = one["spec"]["template"]["spec"]["containers"]
            written |= {each["name"] for each in container["env"] if "secretKeyRef" not in each.get("valueFrom", {})}
    assert {"PORT", "KIKI_VALUE_PORT", "POD_NAME"} <= written
    assert written <= guards.OWN_SETTINGS.keys() | MAY_DIFFER
    assert not guards.OWN_SETTINGS.keys() & MAY_DIFFER
    some = [f"syncshield.extraEnv.{name}=1" for name in ("KIKI_LOG_LEVEL", "KIKI_RATE", "AZURE_STORAGE_ACCOUNT_NAME")]
    assert [] == guards.contradictions(full(layers("prod", *some)))


@pytest.mark.parametrize(("environment", "sets"), CONTRADICTIONS)
def test_contradictions_are_told_in_the_same_words_with_and_without_an_engine(environment, sets, engine: Engine):
    values = layers(environment, *sets)
    told = guards.contradictions(full(values))
    assert told
    refused = [line.strip(" -") for line in engine.refusal(values).splitlines() if line.startswith("  - ")]
    assert sorted(told) == sorted(refused)


@pytest.mark.parametrize("minimum", range(5))
@pytest.mark.parametrize("replicas", range(1, 5))
def test_no_disruption_budget_blocks_a_drain(replicas: int, minimum: int, engine: Engine):
    """The global one gives way and says so; one that names a service and would block is refused."""
    values = layers(
        "prod",
        "syncshield.autoscaling.enabled=false",
        f"syncshield.replicaCount={replicas}",
        f"pdb.minAvailable={minimum}",
    )
    texts = engine.texts(values)
    (budget,) = [
        one
        for one in yaml.safe_load_all(texts["kiki/templates/pdb.yaml"])
        if one and one["metadata"]["name"] == "syncshield-pdb"
    ]
    least = budget["spec"].get("minAvailable")
    assert (least or 0) < replicas
    assert ("maxUnavailable" in budget["spec"]) == (least is None)
    notes = next(text for path, text in texts.items() if path.endswith("NOTES.txt"))
    assert ("syncshield: pdb.minAvailable" in notes) == (0 < minimum >= replicas)
    explicit = layers(
        "prod",
        "syncshield.autoscaling.enabled=false",
        f"syncshield.replicaCount={replicas}",
        f"syncshield.pdb.minAvailable={minimum}",
    )
    assert bool(guards.contradictions(full(explicit))) == (0 < minimum >= replicas)


def test_a_limit_below_its_request_is_told_before():
    sets = [
        "syncshield.resources.limits.cpu=10m",
        "syncvalue.resources.requests.memory=9Ti",
        "otel.collector.resources.limits.memory=1k",
        "syncflow.resources.requests.cpu=1,syncflow.resources.limits.cpu=1000m",
    ]
    with pytest.raises(ValuesError) as told:
        read_layers("prod", [], sets)
    starts = sorted(problem.partition(" is below")[0] for problem in told.value.problems)
    assert starts == [
        "otel.collector.resources.limits.memory: 1k",
        "syncshield.resources.limits.cpu: 10m",
        "syncvalue.resources.limits.memory: 1Gi",
    ]
    assert any(problem.endswith("or lower syncshield.resources.requests.cpu") for problem in told.value.problems)


def test_a_setting_that_a_service_would_end_over_is_told_before():
    sets = [
        "syncshield.extraEnv.KIKI_RAET=4",
        "syncflow.extraEnv.KIKI_RATE=often",
        "syncengage.extraEnv.KIKI_RATE=4",
        "syncvalue.extraEnv.SOMEBODY_ELSES=4",
    ]
    with pytest.raises(ValuesError) as told:
        read_layers("prod", [], sets)
    assert told.value.problems == (
        "syncflow.extraEnv.KIKI_RATE='often': expected requests per second as a decimal number from 0 (no limit) to 1000000",
        "syncshield.extraEnv.KIKI_RAET: unknown; did you mean KIKI_RATE?",
    )
