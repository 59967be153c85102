"""Logs are JSON lines without personal data; metrics are plain numbers until Prometheus asks."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from kiki.telemetry import (
    BUCKETS,
    HttpMetrics,
    JsonFormatter,
    configure_logging,
    log_event,
    new_registry,
    redact,
    redact_text,
    render,
    request_id,
)

logger = logging.getLogger("kiki.test")


@pytest.fixture
def lines():
    """What was logged since, as objects; the root logger is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logging("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


class TestLines:
    def test_a_line_is_one_object_with_its_fields(self, lines):
        log_event(logger, logging.INFO, "listening", port=8081, host="127.0.0.1")
        (line,) = lines()
        assert line["ts"].endswith("Z")
        del line["ts"]
        assert line == {"level": "info", "logger": "kiki.test", "event": "listening", "port": 8081, "host": "127.0.0.1"}

    def test_the_request_id_is_on_every_line_of_a_request(self, lines):
        token = request_id.set("abc-1")
        logger.warning("in %s", "it")
        request_id.reset(token)
        logger.warning("after it")
        assert [line.get("request_id") for line in lines()] == ["abc-1", None]

    def test_the_level_holds(self, lines):
        log_event(logger, logging.DEBUG, "quiet")
        assert lines() == []

    def test_configuring_again_replaces_the_handler(self, lines):
        second = io.StringIO()
        configure_logging("warning", second)
        logger.warning("once")
        assert lines() == []
        assert len(second.getvalue().splitlines()) == 1

    def test_an_exception_is_a_field_without_what_it_must_not_tell(self, lines):
        try:
            raise RuntimeError("GET /spend?customer_id=c-17 failed, customer:c-17")
        except RuntimeError as error:
            log_event(logger, logging.ERROR, "failed", exc_info=error)
        (line,) = lines()
        assert line["exception"]["type"] == "builtins.RuntimeError"
        assert "Traceback" in line["exception"]["traceback"]
        assert "c-17" not in json.dumps(line)

    def test_fields_do_not_replace_the_lines_own(self, lines):
        log_event(logger, logging.INFO, "real", ts="x")
        assert lines()[0]["ts"] != "x"

    @pytest.mark.parametrize(
        ("message", "arguments"), [("%d", ("x",)), ("%s %s", ("one",)), ("\ud800", ()), ("line\nline\u2028", ())]
    )
    def test_a_record_that_cannot_be_formatted_is_still_one_line(self, message, arguments):
        record = logging.LogRecord("x", logging.INFO, "f", 1, message, arguments, None)
        line = JsonFormatter().format(record)
        assert "\n" not in line
        assert json.loads(line)["event"]

    def test_values_that_are_no_json_become_text(self, lines):
        log_event(logger, logging.INFO, "odd", a=float("nan"), b={1, 2}, c=object, d=b"x", e=(1, 2.5, None, True))
        (line,) = lines()
        assert (line["a"], sorted(line["b"]), line["e"]) == ("nan", [1, 2], [1, 2.5, None, True])

    def test_something_that_holds_itself_ends(self):
        loop: list[object] = []
        loop.append(loop)
        assert "..." in json.dumps(redact(loop))


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("GET /spend?amount=1&customer_id=c-17 HTTP/1.1", "GET /spend?[redacted] HTTP/1.1"),
            ("http://u:pw@host/x?y=1", "http://[redacted]@host/x?[redacted]"),
            ("customer_id=c-17 was refused", "customer_id=[redacted] was refused"),
            ("scope customer:c-17, platform:meta", "scope customer:[redacted], platform:meta"),
            ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
            ('{"token": "abc", "a": 1}', '{"token": [redacted], "a": 1}'),
            ("password=hunter2;x=1", "password=[redacted];x=1"),
            ("what is this? nothing", "what is this? nothing"),
            ("tokens: 3 loaded", "tokens: 3 loaded"),
        ],
    )
    def test_texts(self, text, expected):
        assert redact_text(text) == expected

    def test_named_fields_at_any_depth(self):
        given_ = {"customer": "c", "Authorization": "b", "x": [{"api_key": 1, "access_token": "t", "ok": 1}], "keys": 2}
        hidden = "[redacted]"
        assert redact(given_) == {
            "customer": hidden,
            "Authorization": hidden,
            "x": [{"api_key": hidden, "access_token": hidden, "ok": 1}],
            "keys": 2,
        }

    @given(st.text(), st.from_regex(r"[A-Za-z0-9]{6,12}", fullmatch=True))
    def test_no_query_survives(self, before, secret):
        assert (
            secret not in redact_text(f"{before} /spend?customer_id={secret}").removeprefix(before) or secret in before
        )


class TestHttpMetrics:
    def samples(self, registry):
        body, content_type = render(registry)
        assert content_type.startswith("text/plain")
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def test_requests_and_durations_are_what_was_recorded(self):
        registry = CollectorRegistry()
        route = HttpMetrics("shield", registry).route("/spend")
        for method, status, seconds in [
            ("GET", 200, 0.0004),
            ("GET", 200, 0.0005),
            ("POST", 403, 0.3),
            ("GET", 200, 99),
        ]:
            route.record(method, status, seconds)
        found = self.samples(registry)
        labels = (("route", "/spend"), ("service", "shield"))
        assert found["kiki_http_requests_total", ("method", "GET"), *labels, ("status", "200")] == 3
        assert found["kiki_http_requests_total", ("method", "POST"), *labels, ("status", "403")] == 1
        bucket = {
            dict(key[1:])["le"]: value for key, value in found.items() if key[0] == "kiki_http_request_seconds_bucket"
        }
        assert bucket["0.0005"] == 2, "bounds are inclusive"
        assert (bucket["0.25"], bucket["0.5"], bucket["10.0"], bucket["+Inf"]) == (2, 3, 3, 4)
        assert len(bucket) == len(BUCKETS) + 1
        assert found["kiki_http_request_seconds_count", *labels] == 4
        assert found["kiki_http_request_seconds_sum", *labels] == pytest.approx(99.3009)

    def test_a_method_that_nobody_knows_is_no_series_of_its_own(self):
        registry = CollectorRegistry()
        route = HttpMetrics("shield", registry).route("unknown")
        for number in range(50):
            route.record(f"M{number}", 404, 0.001)
        methods = {dict(key[1:]).get("method") for key in self.samples(registry)}
        assert methods == {None, "OTHER"}

    def test_two_services_do_not_share_a_registry_by_accident(self):
        registry = CollectorRegistry()
        HttpMetrics("a", registry)
        with pytest.raises(ValueError, match="kiki_http_requests"):
            HttpMetrics("b", registry)

    def test_a_registry_of_ours_tells_about_the_process(self):
        first, second = new_registry(), new_registry()
        assert first is not second
        assert b"process_resident_memory_bytes" in render(first)[0]
