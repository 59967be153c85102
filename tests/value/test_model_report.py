from __future__ import annotations

import re
from datetime import date

import pandas as pd
import pytest

from kiki.value import model_report as subject
from kiki.value import training
from kiki.value.model_report import model_report
from kiki.value.order_log import read_orders
from kiki.value.report import report_page
from tests.value import shop

CALIBRATION_END = date(2024, 9, 30)


@pytest.fixture(scope="module")
def orders():
    return shop.orders(currency="EUR")


@pytest.fixture(scope="module")
def model(orders):
    return training.fit(orders, model="pareto-nbd", calibration_end=CALIBRATION_END, horizon=13)


@pytest.fixture(scope="module")
def report(model, orders):
    return model_report(model, orders)


def test_the_report_holds_the_fit(model, report):
    page = report_page(report)
    assert 8 == len(report.pictures)
    purchases, spend = report.tables
    assert "Purchases: Pareto/NBD" == purchases.title
    assert model.parts[0].parameters == {each.name: each.estimate for each in purchases.parameters}
    assert model.parts[0].standard_errors == {each.name: each.standard_error for each in purchases.parameters}
    assert ["p", "q", "v"] == [each.name for each in spend.parameters]
    for said in (model.fitted_on.fingerprint, model.model_version, "2024-09-30", "EUR", "maximum likelihood"):
        assert said in page


def test_a_model_that_was_not_measured_claims_nothing(model, report):
    assert not report.calibration_claimed
    assert [f"{model.refusal}."] == list(report.calibration)


def test_nobody_is_named(report):
    page = report_page(report)
    assert "customer-" not in page
    for each in shop.IDS:
        assert each not in page
    assert "alert" not in page
    assert "<script" not in page


def test_a_fall_back_and_refunds_without_an_order_are_said():
    """Everybody buys once a week for ever: dropout cannot be seen, and the amount is always the same."""
    days = pd.date_range("2024-01-01", periods=40, freq="7D")
    frame = pd.DataFrame([{"customer_id": str(who), "date": day, "amount": 5} for who in range(30) for day in days])
    refund = pd.DataFrame([{"customer_id": "0", "date": "2023-12-31", "amount": -3}])
    orders = read_orders(pd.concat([frame, refund]))
    page = report_page(model_report(training.fit(orders, model="pareto-nbd", horizon=4), orders))
    assert "pareto-nbd was asked for" in page
    assert re.search("refunds? ha(s|ve) no order", page)
    assert "Spend: one amount" in page


def test_without_matplotlib_the_report_says_what_is_missing(model, orders, monkeypatch):
    monkeypatch.setattr(subject, "find_spec", lambda _: None)
    report = model_report(model, orders)
    assert [] == list(report.pictures)
    assert "kiki[plot]" in report.notes[-1]
    report_page(report)


def test_the_same_model_and_log_give_the_same_page(model, orders, report):
    assert report_page(report) == report_page(model_report(model, orders))


def test_the_card_of_auto_speaks_in_the_report(orders):
    fitted = training.fit(orders, model="auto", horizon=13)
    found = model_report(fitted, orders)
    assert fitted.card.coverage_claimed == found.calibration_claimed
    text = " ".join(found.calibration)
    assert all(sentence[1:] in text for sentence in fitted.card.sentences())
    coverage = fitted.card.coverage
    assert [(kind, level / 100, share) for kind in coverage for level, share in coverage[kind].items()] == list(
        found.coverage
    )
    assert [part.weight for part in fitted.parts] == [table.weight or 1.0 for table in found.tables[:-1]]
