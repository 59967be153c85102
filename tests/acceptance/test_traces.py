"""A service that exports to a collector: one trace from the request to the disk, in the logs too, and nothing personal."""

from __future__ import annotations

import http.client
import json
import signal
import time

from tests.acceptance.serving import shield_in
from tests.otlp_collector import collector

CANARY = "canary-4711-kiki"
PARENT = f"00-{0xABC:032x}-{0xDEF:016x}-01"
EXPECTED = {"GET /spend", "GET /consent/status", "GET", "ledger COMMIT"}
METRIC = "kiki_http_request"


def asked(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body


def named(found):
    """The spans of our trace that have arrived."""
    return {span.name: span for span in [*found.spans] if int.from_bytes(span.trace_id, "big") == 0xABC}


def test_a_request_is_one_trace_down_to_the_disk_and_names_nobody(tmp_path):
    with (
        collector() as (found, address),
        shield_in(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=address,
            KIKI_ACCESS_LOG="true",
            KIKI_LOG_LEVEL="debug",
            OTEL_METRIC_EXPORT_INTERVAL="1000",
        ) as shield,
    ):
        path = "/spend?amount=5"
        assert 200 == asked(shield.port, path, traceparent=PARENT)[0]
        assert 200 == asked(shield.port, f"/consent/status?customer_id={CANARY}", traceparent=PARENT)[0]
        assert 404 == asked(shield.port, f"/nowhere/{CANARY}?customer_id={CANARY}", traceparent=PARENT)[0]
        # A service that ends waits for its collector only a moment, so everything is to arrive before.
        deadline = time.monotonic() + 60
        while not (EXPECTED <= named(found).keys() and any(each.name.startswith(METRIC) for each in found.metrics)):
            assert time.monotonic() < deadline, (found.spans, found.metrics)
            time.sleep(0.05)
        shield.signal(signal.SIGTERM)
        shield.wait()

    ours = named(found)
    spend = ours["GET /spend"]
    assert 0xDEF == int.from_bytes(spend.parent_span_id, "big")
    assert spend.span_id == ours["ledger COMMIT"].parent_span_id
    attributes = {each.key: each.value for each in spend.attributes}
    assert "/spend" == attributes["http.route"].string_value
    assert 200 == attributes["http.response.status_code"].int_value

    told = "".join(map(str, found.spans)) + "".join(map(str, found.metrics)) + shield.log()
    assert CANARY not in told
    access = [line for line in shield.lines() if line["logger"] == "kiki.access" and line.get("route") == "/spend"]
    assert [f"{0xABC:032x}"] == [line["trace_id"] for line in access]
    assert json.dumps(CANARY) not in told
