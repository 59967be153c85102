"""Every numbered example runs as it stands and says what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))

EXPECTED = {
    "01_guard_in_a_script": [
        "order-5: 100.00 admitted",
        "order-6: refused by budget 'default', 0.00 left",
        "0.00 are left",
    ],
    "02_many_scopes": [
        "budget 'each-campaign' on campaign:spring",
        "spending on platform:meta is halted",
        "google: 1.00 fits",
    ],
    "03_reserve_and_commit": ["80.00 does not fit", "30 more? 30.00 fits", "35 more? 35.00 fits", "left now: -24.20"],
    "04_shadow_mode": ["6 spends, 2 of them would have been refused", "2 by each-campaign"],
    "05_consent": [
        "granted by a form, seen from 203.0.113.0/24",
        "said again, written again: False",
        "profiling: nothing is known of the customer's consent to profiling",
        "targeting: tell the person",
        "after the revocation: consent_missing",
    ],
    "06_forget_a_person": [
        "DELETION received, 5 statutory moments to keep",
        "asked twice, one request: True",
        "state: completed",
        "keys: read back True, kept in readable form False",
        "known afterwards: {}",
        "the proof is signed: True",
    ],
    "07_auditor": [
        "trusted: True | entries: 6 | findings: 0",
        "decisions: 3 | resting on consent: 1 | holds: True",
        "altered: entry 3",
        "forged: 130 of 100 in one window of budget 'default'",
    ],
    "08_fit_and_plot": [
        "pareto-nbd, log likelihood -6785.0, converged: True",
        "  alpha    5.767 ± 0.605",
        "best customer: customer-371, 12.4 purchases expected in 24 weeks,",
        "plots: calibration-purchases, calibration-revenue, frequency-recency, lift-purchases, lift-revenue, probability-",
        "report: report.html True",
    ],
    "09_ltv_client": [
        "calibration claimed: False",
        "  because ",
        "two orders: 80 expected, from history",
        "tomorrow's new customer: 75 expected after the first order",
        "service away: 25, a fallback: True, an interval: None",
    ],
    "10_score_in_a_warehouse": [
        "800 customers are 619 different histories",
        "rows in the warehouse: 800",
        "their sum is the model's: True",
        "customer-528: 35 repeat purchases so far, 19.9 expected in 26 weeks",
    ],
    "11_campaigns_in_a_script": [
        "would do: create search, create social, create video",
        "stopped in the middle: running",
        "the same plan is the same run: True",
        "then: completed with 3 campaigns, held: 0",
        "findings: 0",
        "the platforms say the same: True",
        "holds left open: 0",
    ],
    "12_loyalty_points": [
        "earned 612, again: True, there are 612",
        "held for the order: 200, left to spend: 412",
        "refused: 500 points are asked for, and 412 can be spent",
        "after the return: -200",
        "tier: None, 500 points to silver",
        "sums hold: True",
        "somebody else: anothers",
        "codes: {'winback': {'free': 99, 'redeemed': 1}}",
    ],
    "14_retention": [
        "40 customers, 39 concerned",
        "c-01: no_consent; c-02: suppressed; c-00 is not in the segment: True",
        "37 entered",
        "nobody got two: True",
        "the first two of the list got none: True",
        "the budget of 45 holds: True",
        "a second run sends 0",
        "the report knows an effect already: False; to the control group: 0",
    ],
    "13_did_it_help": [
        "the best constant arm: nothing; leaving it for some is carried by the evidence: True",
        "written to: 34%, those who bought at most 4 months ago: 34%",
        "spent 500.00 of 500.00",
        "the truth is 1.20",
        "before it starts: ",
    ],
}


def test_every_example_has_its_expectations() -> None:
    """An example that nobody checks would rot."""
    assert sorted(EXPECTED) == [path.stem for path in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path) -> None:
    """It ends well, quietly, and prints what its text promises."""
    done = subprocess.run(
        # Ibis still calls a method of DuckDB by its old name; that is not ours to change.
        [sys.executable, "-W", "error", "-W", "ignore:fetch_arrow_table:DeprecationWarning", str(example)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    # A new ledger says loudly where its new key lies; nothing else is said.
    talk = [line for line in done.stderr.splitlines() if not line.startswith("a master key was made: ")]
    assert (done.returncode, talk) == (0, [])
    for line in EXPECTED[example.stem]:
        assert line in done.stdout
