"""`kiki engage learn` on mailings as people export them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kiki.cli.main import app

ARMS = ("Mens E-Mail", "Womens E-Mail", "No E-Mail")
NAMES = ("row", "recency", "history", "channel", "mens", "segment", "visit", "conversion", "spend")


def mailing(rows: int, seed: int = 1, *, by_person: bool = False) -> list[list[object]]:
    """Everybody gains by an e-mail alike; or only who buys for men, and the others are put off."""
    chance = np.random.default_rng(seed)
    found: list[list[object]] = []
    for number in range(rows):
        recency, mens = int(chance.integers(1, 13)), int(chance.random() < 0.5)
        arm = int(chance.integers(0, 3))
        lift = (0.25 if mens else -0.06) if by_person else 0.12
        visit = int(chance.random() < 0.1 + 0.05 * (recency < 6) + (lift if arm == 0 else 0.02 if arm == 1 else 0))
        bought = int(visit and chance.random() < 0.3)
        spend = round(float(chance.gamma(2, 20)), 2) if bought else 0
        history = round(float(np.exp(chance.normal(5, 1))), 2)
        found.append([number, recency, history, chance.choice(["Web", "Phone"]), mens, ARMS[arm], visit, bought, spend])
    return found


def write(file: Path, rows: list[list[object]], names: tuple[str, ...] = NAMES, delimiter: str = ",") -> Path:
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, delimiter=delimiter).writerows([names, *rows])
    return file


def learn(file: Path, *arguments: str, code: int = 0):
    result = CliRunner().invoke(app, ["engage", "learn", str(file), *arguments])
    assert result.exit_code == code, result.output
    return result


def told(file: Path, *arguments: str):
    return json.loads(learn(file, "--arm-col", "segment", *arguments, "--json").stdout)


def test_a_mail_that_helps_everybody_alike_stays_the_constant_and_beats_the_most_dormant(tmp_path):
    found = told(write(tmp_path / "log.csv", mailing(6000)), "--outcome-col", "spend")
    assert (found["control"], found["dormancy"], found["early"]) == ("No E-Mail", "recency", "visit")
    assert found["features"] == ["channel", "history", "mens", "recency"]
    assert set(found["left_out"]) == {"row", "visit", "conversion"}
    assert found["best_constant"] == "Mens E-Mail"
    assert found["recommended"] == {"policy": "constant", "arm": "Mens E-Mail"}
    best, learned = found["constants"]["Mens E-Mail"], found["learned"]
    assert learned["value"] >= best["value"] - 2 * best["error"]
    assert learned["value"] > found["most_dormant"]["value"]
    assert sum(each["people"] for each in found["constants"].values()) == 6000


def test_a_mail_that_puts_some_off_goes_to_the_others_and_pays(tmp_path):
    found = told(write(tmp_path / "log.csv", mailing(6000, by_person=True)), "--outcome-col", "visit")
    assert found["recommended"]["policy"] == "learned"
    assert found["learned"]["over_best_constant"]["low"] > 0
    assert 0.4 < found["learned"]["shares"]["Mens E-Mail"] < 0.6
    assert found["left_out"].keys() >= {"conversion", "spend"}


def test_a_dear_mail_goes_to_nobody(tmp_path):
    file = write(tmp_path / "log.csv", mailing(3000))
    costs = [option for arm in ARMS[:2] for option in ("--cost", f"{arm}=5")]
    found = told(file, "--outcome-col", "visit", *costs)
    assert found["recommended"] == {"policy": "constant", "arm": "No E-Mail"}


def test_what_a_person_reads(tmp_path):
    result = learn(write(tmp_path / "log.csv", mailing(900)), "--arm-col", "segment", "--outcome-col", "conversion")
    lines = result.stdout.splitlines()
    assert lines[0] == "900 people, 4 features; per person, after the cost, 95 %"
    assert [line.split("  ")[1].strip() for line in lines[1:4]] == [
        "everybody No E-Mail",
        "everybody Mens E-Mail",
        "everybody Womens E-Mail",
    ]
    assert lines[-1].startswith("recommended: everybody ")
    assert "not learned from spend" in result.stderr


def test_files_as_they_come(tmp_path):
    """Semicolons and decimal commas, a mark at the beginning, blanks for missing values, yes and no, five arms, gzip."""
    chance = np.random.default_rng(3)
    lines = ["\ufeffGroup;Bought;Age;Joined;Town;Reason"]
    for number in range(1500):
        age = "" if number % 7 == 0 else f"{chance.normal(40, 9):.1f}".replace(".", ",")
        bought = "yes" if chance.random() < 0.02 else "no"
        town = chance.choice(["Wien", "Graz", "NA"])
        lines.append(
            f"{'control' if number % 5 == 0 else number % 5};{bought};{age};2026-0{1 + number % 9}-11;{town};x"
        )
    lines.append("broken;line")
    file = tmp_path / "log.csv.gz"
    file.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    found = json.loads(learn(file, "--arm-col", "group", "--outcome-col", "BOUGHT", "--json").stdout)
    assert (found["people"], found["control"], len(found["constants"])) == (1500, "control", 5)
    assert found["features"] == ["Age", "Joined", "Town"]
    assert found["left_out"] == {"Reason": "the same for everybody"}
    assert found["most_dormant"] is None


def test_without_features_the_best_constant_is_told(tmp_path):
    rows = [["a" if n % 2 else "none", float(n % 2 and n % 3 == 0)] for n in range(600)]
    found = json.loads(
        learn(
            write(tmp_path / "log.csv", rows, ("arm", "y")), "--arm-col", "arm", "--outcome-col", "y", "--json"
        ).stdout
    )
    assert found["recommended"] == {"policy": "constant", "arm": "a"}


@pytest.mark.parametrize(
    ("text", "arguments", "why"),
    [
        ("", ("a", "y"), "the file is empty"),
        ("a,y\n", ("a", "y"), "0 have"),
        ("a,y\n1,2\n", ("b", "y"), "there is no column 'b'"),
        ("a,y\n1,2\n", ("a", "y"), "an experiment has 2 to 20"),
        ("a,y\n1,red\n2,blue\n", ("a", "y"), "not a column of numbers"),
        ("a,y\n1,2\n2,\n", ("a", "y"), "no arm or no outcome"),
        ("a,y\n1,2\n2,3\n", ("a", "a"), "both the arm and the outcome"),
        ("a,y,y\n1,2,3\n", ("a", "y"), "there twice"),
        ("just words\n", ("a", "y"), "1 columns"),
        ("a,y\n1\n1,2\n", ("a", "y"), "as many fields"),
        ('a,y\n"' + "x" * 200_000 + '",1\n', ("a", "y"), "no CSV"),
    ],
)
def test_what_is_no_experiment_is_refused_with_what_to_do(tmp_path, text, arguments, why):
    file = tmp_path / "log.csv"
    file.write_text(text)
    result = learn(file, "--arm-col", arguments[0], "--outcome-col", arguments[1], code=2)
    assert why in result.stderr


@pytest.mark.parametrize("cost", ["email", "email=x", "email=-1", "email=nan", "=", "nobody=1"])
def test_a_cost_that_makes_no_sense_is_refused(tmp_path, cost):
    file = write(tmp_path / "log.csv", mailing(300))
    learn(file, "--arm-col", "segment", "--outcome-col", "visit", "--cost", cost, code=2)


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert "cannot be read" in learn(tmp_path / "no.csv", "--arm-col", "a", "--outcome-col", "b", code=2).stderr
    for data in (b"not gzip", gzip.compress(b"a,b\n" * 99)[:10] + b"\xff" * 30):
        (tmp_path / "no.csv.gz").write_bytes(data)
        assert "cannot be read" in learn(tmp_path / "no.csv.gz", "--arm-col", "a", "--outcome-col", "b", code=2).stderr
