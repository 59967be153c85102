"""`kiki ltv`: from a raw order log to a model file, predictions and judgements, and what is said about bad input."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.value import training
from kiki.value.fitted_model import FittedModel
from kiki.value.order_log import read_orders
from kiki.value.orders import day_of
from kiki.value.purchases import summarise
from kiki.value.score_stream import summary_table
from tests.value import shop

# Of ibis, on its own way to DuckDB.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

CALIBRATION_END = "2024-09-30"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ltv", *map(str, arguments)])


def answer(*arguments: object) -> dict:
    """The JSON of a command that succeeds."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """What a command says that refuses: an error, and nothing on stdout."""
    result = run(*arguments)
    assert (2, "") == (result.exit_code, result.stdout), result.output
    assert "error: " in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A directory with a log of three hundred customers, as CSV, compressed and as Parquet."""
    place = tmp_path_factory.mktemp("ltv")
    orders = shop.orders(currency="EUR")
    customer, day, amount = orders.as_of(orders.last_day)
    frame = pd.DataFrame(
        {
            "customer_id": orders.ids[customer],
            "date": [str(day_of(each)) for each in day],
            "amount": amount / 1_000_000,
            "currency": "EUR",
        }
    )
    frame.to_csv(place / "log.csv", index=False)
    frame.to_csv(place / "log.csv.gz", index=False)
    frame.assign(date=pd.to_datetime(frame.date)).to_parquet(place / "log.parquet")
    return place


@pytest.fixture(scope="module")
def log(home: Path) -> Path:
    return home / "log.csv"


@pytest.fixture(scope="module")
def model(home: Path, log: Path) -> Path:
    """A named model's file."""
    path = home / "named.json"
    training.fit(log, model="mbg-nbd", calibration_end=date(2024, 9, 30), horizon=13).save(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir())


# -- fitting -----------------------------------------------------------------------------------------


def test_fit_leaves_a_model_and_a_report_and_shows_standard_errors(log: Path, here: Path):
    result = run("fit", log, "--model", "pareto-nbd", "--calibration-end", CALIBRATION_END)
    assert result.exit_code == 0, result.output
    assert ["log.model.json", "log.report.html"] == names(here)
    assert "pareto-nbd: 300 customers" in result.stdout
    assert re.search(r"^alpha +\d+\.\d+ +(\d+\.\d+|-)", result.stdout, re.MULTILINE)
    assert re.search(r"^q +\d+\.\d+ +(\d+\.\d+|-)", result.stdout, re.MULTILINE)
    assert "calibration is not claimed" in result.stdout
    assert "model: log.model.json" in result.stdout
    page = (here / "log.report.html").read_text()
    assert "<svg" in page
    assert not [name for name in shop.IDS if name in page]
    assert "customer-17" not in page


def test_fit_json_has_the_literatures_names_and_writes_only_what_is_named(log: Path, here: Path):
    found = answer("fit", log, "--model", "bg-nbd", "--calibration-end", CALIBRATION_END)
    assert "bg-nbd" == found["model"]
    assert ["r", "alpha", "a", "b"] == list(found["parameters"])
    assert found["log_likelihood"] < 0
    assert {"p", "q", "v"} <= found["spend"].keys()
    assert [] == names(here)
    answer("fit", log, "--model", "bg-nbd", "-o", "m.json")
    assert ["m.json", "m.report.html"] == names(here)
    answer("fit", log, "--model", "bg-nbd", "--report", "r.html")
    assert ["m.json", "m.report.html", "r.html"] == names(here)


def test_fit_without_a_model_is_auto_with_its_measured_calibration(log: Path, here: Path):
    found = answer("fit", log, "--calibration-end", CALIBRATION_END, "--horizon", 13, "-o", "m.json")
    assert ("auto", "map") == (found["model"], found["estimator"])
    assert 1 == pytest.approx(sum(part["weight"] for part in found["parts"]))
    card = answer("info", "m.json")["card"]
    assert len(card["origins"]) >= 2
    assert {"80", "90", "95"} == card["origins"][-1]["metrics"]["revenue"]["coverage"].keys()
    assert not card["coverage_claimed"]
    shown = run("info", "m.json").stdout
    assert "calibration is not claimed: 300 customers are too few" in shown or "calibration is not claimed" in shown
    assert found["fingerprint"] in shown


def test_csv_gzip_and_parquet_are_one_log(home: Path):
    prints = {
        answer("fit", home / name, "--model", "nbd")["fingerprint"] for name in ("log.csv", "log.csv.gz", "log.parquet")
    }
    assert 1 == len(prints)


def test_rows_after_the_calibration_do_not_matter(log: Path, tmp_path: Path):
    """The last day itself does."""
    frame = pd.read_csv(log)
    frame[frame.date <= CALIBRATION_END].to_csv(tmp_path / "short.csv", index=False)
    options = ("--model", "mbg-nbd", "--calibration-end", CALIBRATION_END)
    assert answer("fit", log, *options)["fingerprint"] == answer("fit", tmp_path / "short.csv", *options)["fingerprint"]
    frame[frame.date < frame.date.max()].to_csv(tmp_path / "shorter.csv", index=False)
    last = ("--model", "mbg-nbd", "--calibration-end", frame.date.max())
    assert answer("fit", log, *last)["fingerprint"] != answer("fit", tmp_path / "shorter.csv", *last)["fingerprint"]


def test_columns_are_named_or_guessed_and_guesses_are_said(log: Path, tmp_path: Path):
    frame = pd.read_csv(log).rename(columns={"customer_id": "wer", "date": "wann", "amount": "wieviel"})
    frame.to_csv(tmp_path / "de.csv", index=False)
    named = ("--customer-col", "wer", "--date-col", "wann", "--amount-col", "wieviel")
    assert (
        answer("fit", log, "--model", "nbd")["fingerprint"]
        == answer("fit", tmp_path / "de.csv", *named, "--model", "nbd")["fingerprint"]
    )
    assert "no column looks like the customer" in refused("fit", tmp_path / "de.csv")
    assert "hint: name it with --customer-col" in refused("fit", tmp_path / "de.csv")
    assert any("column 'customer_id'" in note for note in answer("fit", log, "--model", "nbd")["notes"])


def test_units_and_estimators_are_options(log: Path):
    week, day = (answer("fit", log, "--model", "mbg-nbd", "--unit", unit)["parameters"] for unit in ("week", "day"))
    assert day["alpha"] == pytest.approx(7 * week["alpha"], rel=1e-4)
    assert "map" == answer("fit", log, "--model", "mbg-nbd", "--estimator", "map")["estimator"]


def test_fit_as_a_process_warns_of_nothing(log: Path, here: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "kiki", "ltv", "fit", str(log), "--model", "bg-nbd", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "" == done.stderr
    assert "bg-nbd" == json.loads(done.stdout)["model"]


# -- predicting --------------------------------------------------------------------------------------


def test_predict_a_customer_of_the_log(log: Path, model: Path):
    found = answer("predict", log, "--model", model, "--customer", "customer-17", "--calibration-end", CALIBRATION_END)
    fitted, orders = FittedModel.load(model), read_orders(log)
    known = summarise(orders, date(2024, 9, 30))
    row = known.ids.tolist().index("customer-17")
    expected = fitted.predict(known).row(row)
    assert expected.purchases.mean == pytest.approx(found["purchases"]["mean"], rel=1e-9)
    assert [expected.revenue.lower[90], expected.revenue.upper[90]] == pytest.approx(
        found["revenue"]["intervals"]["90"], rel=1e-3
    )
    assert (CALIBRATION_END, 13.0, "EUR", int(known.x[row])) == (
        found["as_of"],
        found["horizon"],
        found["currency"],
        found["frequency"],
    )
    assert not found["coverage_claimed"]
    assert fitted.model_version == found["model_version"]


def test_ids_are_taken_as_they_stand(log: Path, model: Path):
    for name in shop.IDS:
        assert name == answer("predict", log, "--model", model, "--customer", name)["customer_id"]
    result = run("predict", log, "--model", model, "--customer", shop.IDS[0])
    assert f"customer {shop.IDS[0]}, as of" in result.stdout


def test_predict_a_history_that_is_typed_in(model: Path):
    found = answer("predict", "--model", model, "--frequency", 3, "--recency", 20, "--age", 22, "--amount", 40)
    assert (None, None, 3) == (found["customer_id"], found["as_of"], found["frequency"])
    fresh = answer("predict", "--model", model, "--frequency", 0, "--age", 1)
    assert fresh["purchases"]["mean"] < found["purchases"]["mean"]
    assert found["revenue"]["mean"] == pytest.approx(found["purchases"]["mean"] * found["order_amount_mean"])


def test_a_discount_rate_adds_what_all_purchases_are_worth_now(model: Path):
    history = ("--model", model, "--frequency", 3, "--recency", 20, "--age", 22, "--amount", 40)
    assert answer("predict", *history)["discounted_value_no_end"] is None
    little, much = (
        answer("predict", *history, "--discount-rate", rate)["discounted_value_no_end"] for rate in (0.2, 0.05)
    )
    assert 0 < little < much


def test_a_model_by_its_name_is_fitted_to_the_log_first(log: Path, model: Path):
    asked = (log, "--customer", "customer-17", "--calibration-end", CALIBRATION_END, "--horizon", 13)
    fitted_now = answer("predict", *asked, "--model", "mbg-nbd")
    assert fitted_now["purchases"] == answer("predict", *asked, "--model", model)["purchases"]


def test_explain_says_it_in_words(log: Path, model: Path):
    result = run("explain", log, "--model", model, "--customer", "customer-17")
    assert result.exit_code == 0, result.output
    assert re.search(r"^1\. \w+", result.stdout, re.MULTILINE)
    reasons = answer("explain", log, "--model", model, "--customer", "customer-17")["reasons"]
    assert 3 == len(reasons)
    assert reasons[0] in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--frequency", 2, "--recency", 30, "--age", 20), "the recency is larger than the age"),
        (("--frequency", -1, "--recency", 0, "--age", 20), "a frequency is a whole number"),
        (("--frequency", 0, "--recency", 5, "--age", 20), "without a repeat purchase"),
        (("--frequency", 2, "--recency", "nan", "--age", 20), "not a number"),
        (("--frequency", 200, "--recency", 10, "--age", 20), "200 repeat purchases in 70 days cannot be"),
        (("--frequency", 2, "--recency", 10, "--age", 20, "--amount", -5), "an amount is a number from 0"),
        (("--frequency", 2, "--recency", 10, "--age", 20, "--horizon", 0), "out of range"),
        (("--frequency", 2, "--recency", 10, "--age", 20, "--horizon", 1e9), "ten years at most"),
        (("--frequency", 2, "--recency", 10, "--age", 20, "--discount-rate", -1), "a discount rate is a year's"),
        (("--frequency", 2, "--recency", 10, "--age", 20, "--unit", "day"), "the model counts in weeks"),
        (("--frequency", 2, "--recency", 10, "--age", 20, "--estimator", "map"), "not for one from a file"),
        (("--frequency", 2, "--age", 20), "a history needs --frequency, --recency and --age"),
        (("--amount", 20), "a history needs"),
        ((), "whom to predict"),
        (("--customer", "customer-1", "--frequency", 2, "--recency", 1, "--age", 2), "whom to predict"),
        (("--customer", "customer-1"), "name its FILE"),
    ],
)
def test_an_impossible_question_is_refused(model: Path, options, said: str):
    assert said in refused("predict", "--model", model, *options)


def test_a_customer_who_is_not_there_is_not_found(log: Path, model: Path):
    result = run("predict", log, "--model", model, "--customer", "nobody", "--json")
    assert (1, "not_found") == (result.exit_code, json.loads(result.stderr.splitlines()[-1])["error"]["code"])


# -- scoring -----------------------------------------------------------------------------------------


def test_scores_are_the_predictions_of_everybody(log: Path, model: Path, here: Path):
    told = answer("score", log, "--model", model, "--calibration-end", CALIBRATION_END, "-o", "s.parquet")
    assert ("s.parquet", 300, CALIBRATION_END, 13.0) == (
        told["file"],
        told["customers"],
        told["as_of"],
        told["horizon"],
    )
    scores = pq.read_table("s.parquet")
    expected = FittedModel.load(model).predict(summarise(read_orders(log), date(2024, 9, 30)))
    assert expected.ids.tolist() == scores["customer_id"].to_pylist()
    assert expected.revenue.mean == pytest.approx(scores["revenue_13_weeks_mean"].to_numpy())
    assert list(expected.as_columns()) == scores.column_names


def test_every_way_in_gives_the_same_scores(home: Path, model: Path, here: Path):
    """The log in memory, through DuckDB, with moments that have a zone, and as a summary."""
    known = summarise(read_orders(home / "log.csv"))
    pq.write_table(summary_table(known), "summary.parquet")
    frame = pd.read_parquet(home / "log.parquet")
    frame.assign(date=frame.date.dt.tz_localize("UTC")).to_parquet("zoned.parquet")
    found = []
    for place, source in enumerate((home / "log.csv", home / "log.parquet", "zoned.parquet", "summary.parquet")):
        told = answer(
            "score", source, "--model", model, "--calibration-end", known.calibration_end, "-o", f"{place}.parquet"
        )
        assert str(known.calibration_end) == told["as_of"]
        found.append(pq.read_table(f"{place}.parquet").to_pandas().sort_values("customer_id").reset_index(drop=True))
    for each in found[1:]:
        pd.testing.assert_frame_equal(found[0], each, check_dtype=False, rtol=1e-6)


def test_scores_as_csv_keep_ids_with_commas_and_emoji(log: Path, model: Path, here: Path):
    answer("score", log, "--model", model, "-o", "s.csv")
    with Path("s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 300 == len(rows)
    assert set(shop.IDS) <= {row["customer_id"] for row in rows}
    assert ["s.csv"] == names(here)


def test_a_summary_that_cannot_be_leaves_the_old_file(model: Path, home: Path, here: Path):
    table = summary_table(summarise(read_orders(home / "log.csv")))
    tx = table["tx"].to_numpy().copy()
    tx[7] = 10_000
    pq.write_table(table.set_column(table.schema.get_field_index("tx"), "tx", pa.array(tx)), "bad.parquet")
    Path("s.parquet").write_bytes(b"before")
    assert "a history has 0 ≤ x ≤ tx ≤ T" in refused("score", "bad.parquet", "--model", model, "-o", "s.parquet")
    assert b"before" == Path("s.parquet").read_bytes()
    assert ["bad.parquet", "s.parquet"] == names(here)


# Ways of writing a table, none of which an engine and the reader in memory take alike by themselves.
ODD = {
    "ids-with-a-gap": lambda frame: frame.assign(customer_id=[*map(float, range(17849, 17849 + len(frame) - 1)), None]),
    "plain-days": lambda frame: frame.assign(date=frame.date.dt.strftime("%Y%m%d")),
    "days-as-numbers": lambda frame: frame.assign(date=frame.date.dt.strftime("%Y%m%d").astype(int)),
    "text-with-offset": lambda frame: frame.assign(date=frame.date.dt.strftime("%Y-%m-%dT23:30:00-05:00")),
    "amounts-as-text": lambda frame: frame.assign(amount=" " + frame.amount.astype(str)),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_parquet_log_is_scored_as_it_is_read_in_memory(home: Path, model: Path, here: Path, odd: str):
    frame = ODD[odd](pd.read_parquet(home / "log.parquet"))
    frame.to_parquet("odd.parquet")
    answer("score", "odd.parquet", "--model", model, "-o", "s.parquet")
    expected = FittedModel.load(model).predict(summarise(read_orders("odd.parquet")))
    scores = pq.read_table("s.parquet").sort_by("customer_id")
    assert expected.ids.tolist() == scores["customer_id"].to_pylist()
    assert expected.revenue.mean == pytest.approx(scores["revenue_13_weeks_mean"].to_numpy())


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_guessed_columns_are_said_however_a_log_is_read(home: Path, model: Path, here: Path, name: str):
    told = run("score", home / name, "--model", model, "-o", "s.parquet")
    assert "amounts are read from column 'amount'" in told.stderr
    named = run("score", home / name, "--model", model, "-o", "s.parquet", "--amount-col", "amount")
    assert "amounts are read from" not in named.stderr


def test_a_parquet_log_with_text_that_is_no_number_names_the_row(home: Path, model: Path, here: Path):
    frame = pd.read_parquet(home / "log.parquet").head(3)
    frame.assign(amount=["1.5", "1,5", "2"]).to_parquet("odd.parquet")
    assert "row 2 ('1,5')" in refused("score", "odd.parquet", "--model", model, "-o", "s.parquet")
    assert ["odd.parquet"] == names(here)


@pytest.mark.parametrize("command", ["fit", "score"])
def test_a_parquet_log_with_two_columns_of_a_name_is_refused(home: Path, model: Path, here: Path, command: str):
    table = pq.read_table(home / "log.parquet", columns=["customer_id", "date", "amount"])
    pq.write_table(table.append_column("amount", table["amount"]), "two.parquet")
    said = (
        refused("fit", "two.parquet")
        if command == "fit"
        else refused("score", "two.parquet", "--model", model, "-o", "s.csv")
    )
    assert "there are 2 columns 'amount'" in said
    assert ["two.parquet"] == names(here)


def test_a_parquet_log_is_scored_with_the_same_words_as_a_csv(home: Path, model: Path, here: Path):
    frame = pd.read_parquet(home / "log.parquet", columns=["customer_id", "date", "amount"]).head(50)
    day, who = frame["date"].iloc[0], frame["customer_id"].iloc[0]
    odd = [("", day, 5.0), (None, day, 5.0), ("", day, -5.0), ("new", day, -3.0), ("new", day, -3.0), (who, day, -1e6)]
    frame = pd.concat([frame, pd.DataFrame(odd, columns=frame.columns)])
    frame.to_parquet("log.parquet", index=False)
    frame.to_csv("log.csv", index=False)
    notes, refusals = {}, {}
    for name in ("log.parquet", "log.csv"):
        said = run("score", name, "--model", model, "-o", f"{name}.scores.csv").stderr.splitlines()
        notes[name] = [re.sub(r": rows? [0-9, and]+$", "", line) for line in said if line.startswith("note: ")]
        told = refused("score", name, "--model", model, "-o", "s.csv", "--calibration-end", "1999-01-01")
        refusals[name] = told[told.index("error: ") :]
    assert notes["log.parquet"] == notes["log.csv"]
    assert "note: 3 lines without a customer are left out" in notes["log.csv"]
    assert "note: 3 refunds have no order they could belong to and are not counted" in notes["log.csv"]
    assert Path("log.parquet.scores.csv").read_text().count("\n") == Path("log.csv.scores.csv").read_text().count("\n")
    assert refusals["log.parquet"] == refusals["log.csv"]
    assert "nobody bought on 1999-01-01 or before: the log begins on " in refusals["log.csv"]


def test_what_there_is_to_know_of_a_fit_is_said_once(here: Path):
    Path("one.csv").write_text("customer_id,date,amount\na,2025-01-01,5\na,2025-03-01,6\na,2025-08-01,6\n")
    said = run("fit", "one.csv", "-o", "one.model.json").stdout.splitlines()
    assert said[0].startswith("auto: 1 customer, 3 purchases, 2025-01-01 to 2025-08-01")
    assert any("dropout is not identified" in line for line in said)
    told = [line.removeprefix("note: ") for line in said if ": " in line]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("target", ["s.txt", "none/s.parquet", "."])
def test_where_scores_cannot_go_is_refused_first(log: Path, model: Path, here: Path, target: str):
    refused("score", log, "--model", model, "-o", target)
    assert [] == names(here)


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_a_day_after_the_log_is_said(home: Path, model: Path, here: Path, name: str):
    last = summarise(read_orders(home / name)).calibration_end
    said = f"ends 30 days after the last line of the log, on {last}"
    for end, expected in ((last + timedelta(days=30), True), (last, False)):
        told = run("score", home / name, "--model", model, "--calibration-end", end, "-o", "s.parquet")
        assert (0, expected) == (told.exit_code, said in told.stderr)
        told = run("predict", home / name, "--model", model, "--calibration-end", end, "--customer", shop.IDS[0])
        assert (0, expected) == (told.exit_code, said in told.stderr)


def test_a_file_that_is_read_is_not_written_over(log: Path, model: Path, here: Path):
    before = log.read_bytes()
    Path("mine.csv").write_bytes(before)
    Path("linked.csv").symlink_to("mine.csv")
    for command in (
        ("fit", "mine.csv", "--model", "nbd", "-o", "mine.csv"),
        ("fit", "mine.csv", "--model", "nbd", "-o", "linked.csv"),
        ("fit", "mine.csv", "--model", "nbd", "--report", "./mine.csv"),
        ("score", "linked.csv", "--model", model, "-o", "mine.csv"),
    ):
        assert "is what is read here, and would be lost" in refused(*command)
    assert "m.json is named twice" in refused("fit", "mine.csv", "--model", "nbd", "-o", "m.json", "--report", "m.json")
    assert before == Path("mine.csv").read_bytes()
    assert ["linked.csv", "mine.csv"] == names(here)


# -- judging -----------------------------------------------------------------------------------------

METRICS = {
    "mae_median",
    "rmse_mean",
    "poisson_deviance_mean",
    "bias_percent",
    "spearman",
    "top_decile_capture",
    "coverage",
}


def test_evaluate_json_is_what_it_promises(log: Path):
    found = answer(
        "evaluate", log, "--model", "mbg-nbd", "--calibration-end", CALIBRATION_END, "--holdout-end", "2024-12-31"
    )
    for kind in ("purchases", "revenue"):
        assert METRICS <= found[kind].keys()
        assert {"80", "90", "95"} == found[kind]["coverage"].keys()
        assert all(0 <= share <= 1 for share in found[kind]["coverage"].values())
        assert (False, True) == (found[kind]["coverage_claimed"], bool(found[kind]["reason"]))
        for name in ("naive", "heuristic"):
            assert METRICS <= found["baselines"][name][kind].keys()
    assert found["fit_seconds"] > 0
    assert (92 / 7, "week", 300) == (found["horizon"], found["unit"], found["customers"])


def test_a_model_file_is_judged_from_its_own_calibration(log: Path, model: Path):
    asked = ("evaluate", log, "--holdout-end", "2024-12-31")
    by_file = answer(*asked, "--model", model)
    by_name = answer(*asked, "--model", "mbg-nbd", "--calibration-end", CALIBRATION_END)
    assert by_file["purchases"]["rmse_mean"] == pytest.approx(by_name["purchases"]["rmse_mean"])
    assert by_file["fit_seconds"] is None
    assert "cannot be judged from 2024-06-30" in refused(*asked, "--model", model, "--calibration-end", "2024-06-30")
    assert "not after the model's calibration" in refused(
        "evaluate", log, "--model", model, "--holdout-end", "2024-09-30"
    )


def test_evaluate_splits_halfway_unless_told(log: Path):
    found = answer("evaluate", log, "--model", "nbd")
    ends = [date.fromisoformat(found[name]) for name in ("calibration_end", "holdout_end")]
    first = date.fromisoformat(pd.read_csv(log).date.min())
    assert abs((ends[1] - ends[0]).days - (ends[0] - first).days) <= 1
    reached = answer("evaluate", log, "--model", "nbd", "--calibration-end", CALIBRATION_END, "--horizon", 4)
    assert ("2024-10-28", 4.0) == (reached["holdout_end"], reached["horizon"])


def test_evaluate_for_people_has_the_baselines_beside_it(log: Path):
    result = run("evaluate", log, "--model", "mbg-nbd", "--calibration-end", CALIBRATION_END)
    assert result.exit_code == 0, result.output
    for word in ("mbg-nbd", "naive", "heuristic", "revenue in", "no calibration is claimed", "fitted in"):
        assert word in result.stdout


def test_compare_shows_models_side_by_side(log: Path):
    asked = ("compare", log, "--model", "bg-nbd", "--model", "nbd", "--calibration-end", CALIBRATION_END)
    found = answer(*asked)
    assert ["bg-nbd", "nbd"] == [each["model"] for each in found["models"]]
    for each in found["models"]:
        assert each["aic"] == pytest.approx(2 * {"bg-nbd": 4, "nbd": 2}[each["fitted"]] - 2 * each["log_likelihood"])
        assert each["purchases"]["poisson_deviance_mean"] > 0
    result = run(*asked)
    assert result.exit_code == 0, result.output
    assert re.search(r"^nbd +-\d", result.stdout, re.MULTILINE)
    assert "there is no model 'arima'" in refused("compare", log, "--model", "arima")


@pytest.mark.parametrize("command", ["evaluate", "compare", "plot"])
def test_a_holdout_before_the_calibration_is_refused(log: Path, command: str):
    said = refused(command, log, "--model", "nbd", "--calibration-end", "2024-09-30", "--holdout-end", "2024-09-30")
    assert "the holdout ends on 2024-09-30, not after the calibration (2024-09-30)" in said


# -- plots -------------------------------------------------------------------------------------------


def test_plot_draws_all_plots_or_one(log: Path, model: Path, here: Path):
    found = answer("plot", log, "--model", model)
    assert 8 == len(found["files"])
    assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in found["files"])
    answer("plot", log, "--model", model, "--kind", "lift-revenue", "-o", "lift.svg")
    assert b"<svg" in Path("lift.svg").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kind", "pie"), "there is tracking-cumulative"),
        (("-o", "x.png"), "say with --kind what it shows"),
        (("-o", "nowhere"), "no directory that there is"),
        (("--format", "jpeg"), "take png or svg"),
        (("--calibration-end", "2020-02-02"), "cannot begin on 2020-02-02"),
    ],
)
def test_a_plot_that_cannot_be_is_refused(log: Path, model: Path, here: Path, options, said: str):
    assert said in refused("plot", log, "--model", model, *options)
    assert [] == names(here)


# -- bad input ---------------------------------------------------------------------------------------

HEAD = "customer_id,date,amount\n"


def written(place: Path, text: str, name: str = "bad.csv") -> Path:
    path = place / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bad.csv is empty"),
        (HEAD, "the order log is empty"),
        (HEAD + "a,2024-01-01,5\n", "every age is 0"),
        (HEAD + "a,2024-01-01,5\nb,2024-01-02,\n", "row 2"),
        (HEAD + "a,2024-01-01,5\nb,2024-01-02,nan\nc,2024-01-03,many\n", "row 2 ('nan'), row 3 ('many')"),
        (HEAD + "a,2024-01-01,5\nb,2024-13-45,5\n", "row 2"),
        (HEAD + "a,2024-01-01,5\nb,yesterday,5\n", "'yesterday'"),
        (HEAD + "a,2024-01-01,5\nb,2199-01-01,5\n", "in the future"),
        (HEAD + "a,2024-01-01,5,6\n", "not a table of equal lines"),
        ("customer_id,date,amount,currency\na,2024-01-01,5,EUR\nb,2024-01-02,5,USD\n", "'USD'"),
        ("id,when,much\na,2024-01-01,5\n", "no column looks like the date"),
        (HEAD + "a,2024-01-01,-5\n", "nobody bought"),
        ("\x00\x01\xff", "no column looks like the customer"),
    ],
    ids=lambda text: repr(text[:50]),
)
def test_a_log_that_cannot_be_used_is_refused_with_its_rows(here: Path, text: str, said: str):
    path = written(here, text)
    message = refused("fit", path, "--model", "pareto-nbd")
    assert said in message, message
    assert ["bad.csv"] == names(here)


def test_a_file_that_is_no_log_is_refused(home: Path, model: Path, here: Path):
    assert "there is no file" in refused("fit", "absent.csv")
    assert "ends in .csv, .csv.gz or .parquet" in refused("fit", written(here, HEAD, "log.xlsx"))
    assert "a model file goes behind --model" in refused("score", model, "--model", model, "-o", "s.parquet")
    assert "no whole Parquet file" in refused(
        "score", written(here, HEAD, "x.parquet"), "--model", model, "-o", "s.csv"
    )
    assert "no whole gzip file" in refused("fit", written(here, HEAD, "x.csv.gz"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--calibration-end", "1999-01-01"), "nobody bought on 1999-01-01 or before: the log begins on 2024-01-"),
        (("--calibration-end", "30.9.2024"), "--calibration-end '30.9.2024' is not a date"),
        (("--model", "arima"), "the models are auto"),
        (("--model", "auto", "--estimator", "mle"), "no other estimator"),
        (("--unit", "year"), "take day, week, month"),
        (("--horizon", "-1"), "out of range"),
        (("--discount-rate", "0"), "a discount rate"),
        (("--currency", "USD"), "the log is in 'EUR', not in 'USD'"),
        (("--tz", "Mars/Olympus"), "not a time zone"),
        (("--amount-col", "price"), "there is no column 'price'"),
        (("-o", "none/m.json"), "there is no directory none"),
        (("-o", "."), "is a directory"),
        (("--report", "none/r.html"), "there is no directory none"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_written(log: Path, here: Path, options, said: str):
    assert said in refused("fit", log, *options)
    assert [] == names(here)


def test_an_error_is_json_where_json_is_asked_for(here: Path):
    result = run("fit", written(here, HEAD), "--json")
    assert (2, "") == (result.exit_code, result.stdout)
    assert "invalid_input" == json.loads(result.stderr)["error"]["code"]


def test_an_edited_model_and_one_of_a_newer_kiki_are_refused(model: Path, here: Path):
    edited = written(here, re.sub(r'"r": \d', '"r": 7', model.read_text()), "edited.json")
    newer = written(here, model.read_text().replace('"format_version": 1', '"format_version": 2'), "newer.json")
    half = written(here, model.read_text()[:300], "half.json")
    for path, said in ((edited, "was edited after it was written"), (newer, "update kiki"), (half, "no whole JSON")):
        for command in (("info", path), ("predict", "--model", path, "--frequency", 0, "--age", 5)):
            result = run(*command)
            assert (1, "") == (result.exit_code, result.stdout)
            assert said in result.stderr
    assert "there is no model file" in run("info", here / "none.json").stderr


def test_one_customer_is_a_log(here: Path):
    path = written(here, HEAD + "".join(f"a,2024-0{month}-01,{10 + month}\n" for month in range(1, 7)))
    until = ("--calibration-end", "2024-08-01")
    assert 1 == answer("fit", path, "--model", "pareto-nbd", *until)["customers"]
    predicted = answer("predict", path, "--model", "pareto-nbd", *until, "--customer", "a", "--horizon", 4)
    assert 0 < predicted["revenue"]["mean"] < 500
    assert "auto" == answer("fit", path, "--model", "auto", "--calibration-end", "2024-08-01")["model"]


def test_one_purchase_each_expects_next_to_nothing(here: Path):
    path = written(here, HEAD + "".join(f"c{place},2024-01-{1 + place % 28:02},9.5\n" for place in range(80)))
    until = ("--calibration-end", "2024-06-30")
    assert 9.5 == answer("fit", path, *until)["spend"]["constant"]
    predicted = answer("predict", path, "--customer", "c7", *until)
    assert predicted["revenue"]["mean"] < 2
    assert predicted["revenue"]["mean"] == pytest.approx(9.5 * predicted["purchases"]["mean"])


def test_equal_amounts_make_revenue_purchases_times_the_amount(log: Path, here: Path):
    frame = pd.read_csv(log).assign(amount=20)
    frame.to_csv("equal.csv", index=False)
    answer("score", "equal.csv", "--model", "mbg-nbd", "-o", "s.parquet", "--horizon", 4)
    scores = pq.read_table("s.parquet").to_pandas()
    for column in ("mean", "median", "upper_95"):
        assert scores[f"revenue_4_weeks_{column}"].to_numpy() == pytest.approx(
            20 * scores[f"purchases_4_weeks_{column}"].to_numpy()
        )


def test_a_row_twice_is_one_purchase_of_both_amounts(log: Path, here: Path):
    """Lines of one customer and day are one order: nobody can tell a copy from a second item."""
    frame = pd.read_csv(log)
    pd.concat([frame, frame]).to_csv("twice.csv", index=False)
    once, twice = (answer("fit", source, "--model", "bg-nbd") for source in (log, "twice.csv"))
    assert once["parameters"] == twice["parameters"]
    assert twice["spend"]["v"] == pytest.approx(2 * once["spend"]["v"], rel=1e-4)


def test_refunds_without_an_order_are_said_with_their_rows(log: Path, here: Path):
    frame = pd.read_csv(log)
    lost = pd.DataFrame([("nobody", "2024-05-05", -5.0, "EUR")], columns=frame.columns)
    pd.concat([frame, lost]).to_csv("refund.csv", index=False)
    found = answer("fit", "refund.csv", "--model", "nbd")
    said = f"1 refunds have no order they could belong to and are not counted: row {len(frame) + 1}"
    assert said in found["notes"]
    assert said in run("score", "refund.csv", "--model", "nbd", "-o", "s.parquet").stderr


def test_a_disk_that_cannot_be_written_leaves_no_file(log: Path, model: Path, here: Path, monkeypatch):
    """What fails at the last step leaves what was there before."""
    Path("m.json").write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kiki.value.whole_file.os.fsync", full)
    result = run("fit", log, "--model", "nbd", "-o", "m.json")
    assert (1, "before") == (result.exit_code, Path("m.json").read_text())
    assert "cannot be written: No space left on device" in result.stderr
    assert ["m.json"] == names(here)
