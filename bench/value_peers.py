"""lifetimes and PyMC-Marketing beside kiki, in the same run, on the same customers: seconds of a fit, and how it predicts.

The peers need other versions of the same libraries, so they live in an environment of their own: `PEERS_PYTHON` names its
Python (`python -m venv peers && peers/bin/pip install lifetimes==0.11.3 pymc-marketing`). `CDNOW` names the folder that
has `cdnow_master.csv.gz`. Work is the same for all: Pareto/NBD and Gamma-Gamma on CDNOW full, 39 weeks, from summaries.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import Row
from kiki.value import gamma_gamma
from kiki.value.fitting import fit_count, maximise
from kiki.value.gamma_gamma import Spending
from kiki.value.order_log import read_orders
from kiki.value.purchases import outcomes, summarise
from kiki.value.training import fit

END, HOLDOUT, WEEKS = date(1997, 9, 30), date(1998, 6, 30), 39.0
GOALS = {"lifetimes": 20.0, "PyMC-Marketing": 40.0}

PEERS = r"""
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
which, path, weeks = sys.argv[1], sys.argv[2], float(sys.argv[3])
frame = pd.read_csv(path)
repeat = frame[frame.orders > 0]
def done(seconds, expected):
    print(json.dumps({"seconds": seconds, "expected": [float(each) for each in expected]}))
if which == "lifetimes":
    from lifetimes import GammaGammaFitter, ParetoNBDFitter
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model = ParetoNBDFitter(); model.fit(frame.x, frame.tx, frame.t)
        GammaGammaFitter().fit(repeat.orders, repeat.amount)
        seconds.append(time.perf_counter() - began)
    done(min(seconds), model.conditional_expected_number_of_purchases_up_to_time(weeks, frame.x, frame.tx, frame.t))
else:
    from pymc_marketing.clv import GammaGammaModel, ParetoNBDModel
    data = pd.DataFrame({"customer_id": frame.index, "frequency": frame.x, "recency": frame.tx, "T": frame.t})
    spend = pd.DataFrame({"customer_id": repeat.index, "frequency": repeat.orders, "monetary_value": repeat.amount})
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        model = ParetoNBDModel(data=data); model.fit(method="map", progressbar=False)
        GammaGammaModel(data=spend).fit(method="map", progressbar=False)
        seconds.append(time.perf_counter() - began)
    found = model.expected_purchases(data=data, future_t=weeks)
    done(min(seconds), np.asarray(found).reshape(-1, len(frame)).mean(axis=0))
"""


def _deviance(actual: np.ndarray, expected: np.ndarray) -> float:
    expected = np.maximum(expected, 1e-9)
    logs = np.where(actual > 0, actual * np.log(np.maximum(actual, 1) / expected), 0.0)
    return float(2 * (logs - actual + expected).mean())


def _rmse(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((actual - expected) ** 2).mean()))


def _peer(which: str, path: Path) -> dict[str, Any]:
    command = [os.environ["PEERS_PYTHON"], "-c", PEERS, which, str(path), str(WEEKS)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def run() -> list[Row]:
    """All rows of this part."""
    if "PEERS_PYTHON" not in os.environ or "CDNOW" not in os.environ:
        return [Row("lifetimes and PyMC-Marketing", "not measured: PEERS_PYTHON and CDNOW are not set")]
    orders = read_orders(Path(os.environ["CDNOW"]) / "cdnow_master.csv.gz", until=HOLDOUT)
    found = summarise(orders, END)
    actual = outcomes(orders, found, HOLDOUT).purchases.astype(float)
    count, amount = found.positive_repeats, found.mean_amount_repeat
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        groups, index = found.grouped()
        ours = fit_count("pareto-nbd", groups, "mle")
        maximise(gamma_gamma, Spending.of(count, amount))
        seconds.append(time.perf_counter() - began)
    del ours, index
    auto = fit(orders, calibration_end=END, horizon=WEEKS).predict(found).purchases.mean
    rows = [
        Row("kiki: Pareto/NBD and Gamma-Gamma, with standard errors", f"{min(seconds) * 1e3:.0f} ms"),
        Row("kiki: auto, 39 weeks", f"deviance {_deviance(actual, auto):.3f}, RMSE {_rmse(actual, auto):.3f}"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summary.csv"
        columns = [found.x, found.tx / 7, found.T / 7, count, amount]
        np.savetxt(path, np.column_stack(columns), delimiter=",", header="x,tx,t,orders,amount", comments="")
        for which, goal in GOALS.items():
            peer = _peer(which, path)
            ratio = peer["seconds"] / min(seconds)
            rows.append(
                Row(f"{which}: the same fit", f"{peer['seconds']:.2f} s: {ratio:.0f}x", f"≥ {goal:.0f}x", ratio >= goal)
            )
            expected = np.asarray(peer["expected"])
            theirs, error = _deviance(actual, expected), _rmse(actual, expected)
            met = _deviance(actual, auto) <= theirs and _rmse(actual, auto) <= 1.02 * error
            rows.append(Row(f"{which}: 39 weeks", f"deviance {theirs:.3f}, RMSE {error:.3f}", "auto ≤, ≤ 1.02x", met))
    return rows
