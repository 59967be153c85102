"""The contract ltv.LTVService: its answers are the served model's, under the keys that its clients know.

Its first server was compiled from a file in which spend and score were float, its clients from one in which they are
double. Both are read here: a field of the other wire type is unknown to the generated code, which keeps it.
"""

from __future__ import annotations

import json
import math
import struct
from datetime import date
from typing import Final, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet

from kiki.errors import InvalidInput, NotFound
from kiki.value.contributions import Contributions
from kiki.value.history import AMOUNT_MAX
from kiki.value.pb import ltv_pb2, value_pb2
from kiki.value.score_table import REVENUE
from kiki.value.served_model import ServedModel
from kiki.value.wire import checked_id, read

_SPEND, _SCORE = (
    ltv_pb2.LTVRequest.DESCRIPTOR.fields_by_name[name].number for name in ("recent_spend", "engagement_score")
)
_FIXED32: Final = 5
"""The wire type of float."""


class Asked(NamedTuple):
    """A request, whichever types it was written in."""

    customer_id: str
    recent_spend: float
    engagement_score: float


def read_request(data: bytes) -> Asked:
    """The request in these bytes; raises `InvalidInput` for what no customer has.

    A score above 1 is answered, since clients send such: no model here uses it.
    """
    message = read(ltv_pb2.LTVRequest, data)
    spend, score = message.recent_spend, message.engagement_score
    for field in UnknownFieldSet(message):
        if field.wire_type == _FIXED32 and field.field_number in {_SPEND, _SCORE}:
            (number,) = struct.unpack("<f", struct.pack("<I", field.data))
            # Seven digits are all that a float holds: the rest would be noise.
            number = float(f"{number:.7g}")
            spend, score = (number, score) if field.field_number == _SPEND else (spend, number)
    for name, value, most in (("recent_spend", spend, AMOUNT_MAX), ("engagement_score", score, math.inf)):
        if not (0 <= value <= most and math.isfinite(value)):
            raise InvalidInput(f"{name} is {value:g}: expected a number, 0 or more")
    return Asked(checked_id(message.customer_id), spend, score)


def is_quick(served: ServedModel, asked: Asked) -> bool:
    """True when `answer` only looks up; else it computes for some milliseconds."""
    return not asked.recent_spend or served.table.find(asked.customer_id) is not None


def answer(served: ServedModel, asked: Asked, today: date) -> bytes:
    """The `LTVResponse`. Raises `NotFound` for an unknown id, where such ids are not answered.

    Somebody unknown who spent `recent_spend` counts as a new customer whose first order it was; the recent spend and the
    score of a customer who is known change nothing, because all that he bought is known.
    """
    place = served.table.find(asked.customer_id)
    if place is None and not served.answers_unknown:
        raise NotFound("there is no customer with this id")
    confidence, source = 0.0, value_pb2.SOURCE_UNKNOWN_CUSTOMER
    if place is not None:
        assert served.table.purchases is not None
        row, source = served.table.row(place), value_pb2.SOURCE_SCORED
        confidence = served.coverage.of_customer(int(served.table.purchases.x[place]))
    elif asked.recent_spend:
        row, source = served.score_first_order(asked.recent_spend), value_pb2.SOURCE_NEW_CUSTOMER
        confidence = served.coverage.of_customer(0)
    else:
        row = served.table.row(None)
    return ltv_pb2.LTVResponse(
        predicted_ltv=row[REVENUE][0],
        confidence_score=confidence,
        explanation=json.dumps(_explanation(served, asked, row, source, today)),
    ).SerializeToString()


def _explanation(
    served: ServedModel, asked: Asked, row: list[float], source: value_pb2.Source, today: date
) -> dict[str, object]:
    """The keys of the first server, with values that are true: base and contributions add up to the prediction."""
    parts = Contributions.of(row, served.average)
    coverage, model = served.coverage, served.model
    return {
        "base_spend_value": round(parts.average, 6),
        "engagement_score": asked.engagement_score,
        "spend_contribution": round(parts.spend, 6),
        "engagement_contribution": 0.0,
        "recency_contribution": round(parts.purchases, 6),
        "confidence_factors": {
            "data_freshness": round(served.freshness(today), 6),
            "model_calibration": coverage.overall.get(("revenue", 95)),
            "historical_accuracy": coverage.total_accuracy,
        },
        "coverage_claimed": coverage.claimed,
        "source": value_pb2.Source.Name(source).removeprefix("SOURCE_").lower(),
        "horizon": f"{model.horizon:g} {model.unit}s",
        "model_version": model.model_version,
    }
