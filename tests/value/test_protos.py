"""The contracts on the wire: generated code is what protos/ says, and both old contracts kept their numbers and types."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from kiki.settings import VALUE_CLIENT_VARIABLES, VALUE_VARIABLES
from kiki.value.pb import ltv_pb2, syncvalue_pb2, value_pb2

ROOT = Path(__file__).resolve().parents[2]
PB = ROOT / "kiki" / "value" / "pb"
MADE_WITH = re.compile(r"# Protobuf Python Version: (.*)")

TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_BOOL: "bool",
}

LTV = {
    "LTVRequest": "1 customer_id string, 2 recent_spend double, 3 engagement_score double",
    "LTVResponse": "1 predicted_ltv double, 2 confidence_score double, 3 explanation string",
}
SYNCVALUE = {
    "LTVPredictionRequest": "1 request_id string, 2 timestamp_ms int64, 3 customer_id string, 4 platform string, "
    "5 event_history repeated CustomerEvent, 6 current_cac double, 7 campaign_id string, 8 ad_group_id string, "
    "9 features repeated double, 10 metadata map<string, string>",
    "CustomerEvent": "1 timestamp_ms int64, 2 event_type string, 3 event_value double, 4 source string, "
    "5 attributes map<string, string>",
    "LTVPredictionResponse": "1 request_id string, 2 timestamp_ms int64, 3 predicted_ltv double, 4 confidence double, "
    "5 ltv_lower_bound double, 6 ltv_upper_bound double, 7 model_version string, 8 top_features repeated Feature, "
    "9 inference_time_us int64, 10 status PredictionStatus, 11 error_message string",
    "Feature": "1 name string, 2 importance double, 3 value double",
    "LTVBatchRequest": "1 requests repeated LTVPredictionRequest",
    "LTVBatchResponse": "1 responses repeated LTVPredictionResponse, 2 total_processed int32, 3 successful int32, "
    "4 failed int32",
    "HealthRequest": "1 include_metrics bool",
    "HealthResponse": "1 is_healthy bool, 2 model_version string, 3 uptime_seconds int64, 4 current_accuracy double, "
    "5 target_accuracy double, 6 predictions_today int64, 7 avg_latency_ms double, 8 p95_latency_ms double, "
    "9 p99_latency_ms double, 10 cpu_usage_percent double, 11 memory_usage_mb double, 12 active_connections int32",
}


def described(message) -> str:
    """A message's fields as the tables above write them."""
    return ", ".join(f"{field.number} {field.name} {_kind(field)}" for field in message.fields)


def _kind(field) -> str:
    of = field.message_type
    if of is not None and of.GetOptions().map_entry:
        return f"map<{', '.join(TYPES[each.type] for each in of.fields)}>"
    name = of.name if of is not None else field.enum_type.name if field.enum_type is not None else TYPES[field.type]
    return f"repeated {name}" if field.is_repeated else name


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [(ltv_pb2, *row) for row in LTV.items()] + [(syncvalue_pb2, *row) for row in SYNCVALUE.items()],
)
def test_messages_of_the_old_contracts_keep_their_numbers_and_types(module, name, expected):
    assert expected == described(module.DESCRIPTOR.message_types_by_name[name])


def test_statuses_keep_their_numbers():
    assert syncvalue_pb2.PredictionStatus.items() == [
        ("SUCCESS", 0), ("MODEL_ERROR", 1), ("INVALID_INPUT", 2), ("INSUFFICIENT_DATA", 3), ("TIMEOUT", 4), ("FALLBACK", 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "package", "service", "methods"),
    [
        (ltv_pb2, "ltv", "LTVService", {"PredictLTV": (False, False)}),
        (
            syncvalue_pb2,
            "syncvalue.v1",
            "SyncValueService",
            {
                "PredictLTV": (False, False),
                "PredictLTVBatch": (False, False),
                "PredictLTVStream": (True, True),
                "GetModelHealth": (False, False),
            },
        ),
        (
            value_pb2,
            "kiki.value.v1",
            "ValueService",
            {
                "Predict": (False, False),
                "PredictBatch": (False, False),
                "PredictStream": (True, True),
                "ModelInfo": (False, False),
            },
        ),
    ],
)
def test_services_have_these_methods(module, package, service, methods):
    found = module.DESCRIPTOR.services_by_name[service]
    assert (package, methods) == (
        module.DESCRIPTOR.package,
        {each.name: (each.client_streaming, each.server_streaming) for each in found.methods},
    )


def test_a_response_and_a_batch_share_the_numbers_of_what_all_answers_share():
    """`kiki.value.wire` writes these fields once for both."""
    one, many = value_pb2.PredictResponse.DESCRIPTOR, value_pb2.PredictBatchResponse.DESCRIPTOR
    for name in ("horizon", "unit", "model_version", "as_of", "currency", "coverage_claimed"):
        first, second = one.fields_by_name[name], many.fields_by_name[name]
        assert (first.number, first.type) == (second.number, second.type)
    for message in (value_pb2.PredictBatchResponse, value_pb2.Quantities):
        assert all(field.number < 16 for field in message.DESCRIPTOR.fields), "a key of one byte"


def test_generated_code_is_what_the_protos_say(tmp_path):
    """Run `python scripts/make_pb.py` after a change of protos/."""
    pytest.importorskip("grpc_tools")
    spec = importlib.util.spec_from_file_location("make_pb", ROOT / "scripts" / "make_pb.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    places = {PB, *script.HOMES.values()}
    kept = {path.name: path.read_text() for place in places for path in place.glob("*_pb2.py*")}
    assert sorted(made) == sorted(kept)
    for name, text in made.items():
        versions = [MADE_WITH.findall(each) for each in (text, kept[name])]
        if versions[0] == versions[1]:  # another release of protoc writes other code for the same contract
            assert text == kept[name], name


class TestThePageAboutThem:
    PAGE = (ROOT / "docs" / "api-value.md").read_text()

    @pytest.mark.parametrize(
        "variable", [*VALUE_VARIABLES, *VALUE_CLIENT_VARIABLES], ids=lambda variable: variable.name
    )
    def test_every_setting_stands_there(self, variable):
        assert f"`{variable.name}`" in self.PAGE

    @pytest.mark.parametrize(
        "module", [value_pb2, ltv_pb2, syncvalue_pb2], ids=lambda module: module.DESCRIPTOR.package
    )
    def test_every_method_stands_there(self, module):
        for service in module.DESCRIPTOR.services_by_name.values():
            assert service.full_name in self.PAGE
            assert [] == [each.name for each in service.methods if each.name not in self.PAGE]

    def test_every_status_stands_there_but_the_one_that_never_comes(self):
        """MODEL_ERROR: a call that fails ends with INTERNAL."""
        names = set(syncvalue_pb2.PredictionStatus.keys()) - {"MODEL_ERROR"}
        assert set() == {name for name in names if f"`{name}`" not in self.PAGE}
