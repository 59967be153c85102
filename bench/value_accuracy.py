"""How right forecasts are on CDNOW: 39 weeks to fit, 39 weeks to judge, ours against what peers' forecasts were measured at.

The log is public (brucehardie.com/datasets, and in the repository of lifetimes) and not shipped: the variable CDNOW names the folder
that holds it. Peers are not run here; their figures, of the same split, are those in PEERS. Their deviance is not known:
there the rivals are our plain fits of the same models, which have the published parameters to every digit (tests/value).
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import NamedTuple

from bench.measure import Row
from kiki.value.evaluation import Metrics
from kiki.value.fitted_model import FittedModel
from kiki.value.holdout import Holdout
from kiki.value.order_log import read_orders
from kiki.value.orders import Orders
from kiki.value.training import fit

CALIBRATION_END = date(1997, 9, 30)
HOLDOUT_END = date(1998, 6, 30)
HORIZON = 39.0
PLAIN = ("bg-nbd", "mbg-nbd", "pareto-nbd")


class Peer(NamedTuple):
    """Of mean forecasts; the mean absolute error is theirs because they have no median."""

    name: str
    mae: float
    rmse: float
    bias_percent: float
    revenue_mae: float


PEERS = {
    "sample": (
        Peer("lifetimes 0.11.3 Pareto/NBD", 0.755, 1.603, -11.5, 29.45),
        Peer("PyMC-Marketing 0.19 Pareto/NBD, MAP", 0.758, 1.604, -9.8, 29.60),
        Peer("lifetimes 0.11.3 BG/NBD", 0.785, 1.608, -12.1, 30.41),
        Peer("PyMC-Marketing 0.19 BG/NBD, MAP", 0.788, 1.609, -10.6, 30.51),
        Peer("lifetimes 0.11.3 MBG/NBD", 0.765, 1.607, -16.2, 29.71),
        Peer("PyMC-Marketing 0.19 MBG/NBD, MAP", 0.764, 1.606, -15.3, 29.70),
    ),
    "master": (
        Peer("lifetimes 0.11.3 Pareto/NBD", 0.794, 1.726, -12.9, 31.99),
        Peer("PyMC-Marketing 0.19 Pareto/NBD, MAP", 0.794, 1.726, -12.8, 31.99),
        Peer("lifetimes 0.11.3 BG/NBD", 0.819, 1.733, -14.3, 32.68),
        Peer("PyMC-Marketing 0.19 BG/NBD, MAP", 0.819, 1.732, -14.1, 32.69),
        Peer("lifetimes 0.11.3 MBG/NBD", 0.795, 1.740, -19.1, 31.84),
        Peer("PyMC-Marketing 0.19 MBG/NBD, MAP", 0.794, 1.739, -19.0, 31.84),
    ),
}


def _judged(orders: Orders, name: str) -> tuple[FittedModel, dict[str, Metrics]]:
    model = fit(orders, model=name, calibration_end=CALIBRATION_END, horizon=HORIZON)
    return model, Holdout.of(orders, CALIBRATION_END, HOLDOUT_END, model.unit).judge(model)


def _line(found: dict[str, Metrics]) -> str:
    counts, revenue = found["purchases"], found["revenue"]
    inside = "/".join(f"{share:.1%}" for share in (revenue.coverage or {}).values())
    return (
        f"deviance {counts.poisson_deviance_mean:.3f}, RMSE {counts.rmse_mean:.3f}, bias {counts.bias_percent:+.1f} %, "
        f"median MAE {counts.mae_median:.3f}; revenue: median MAE {revenue.mae_median:.2f}, inside {inside}"
    )


def _rows(log: str, orders: Orders) -> list[Row]:
    rows = [
        Row(
            f"{log}, not run here: {peer.name}",
            f"RMSE {peer.rmse:.3f}, bias {peer.bias_percent:+.1f} %, mean MAE {peer.mae:.3f}",
        )
        for peer in PEERS[log]
    ]
    plain = {name: _judged(orders, name)[1] for name in PLAIN}
    rows += [Row(f"{log}: {name}, maximum likelihood", _line(found)) for name, found in plain.items()]
    model, found = _judged(orders, "auto")
    rows.append(Row(f"{log}: auto", _line(found)))
    counts, revenue = found["purchases"], found["revenue"]
    rival = min(each["purchases"].poisson_deviance_mean for each in plain.values())
    rmse, mae = min(peer.rmse for peer in PEERS[log]), min(peer.mae for peer in PEERS[log])
    rows += [
        Row(
            f"{log}, auto: Poisson deviance a customer",
            f"{counts.poisson_deviance_mean:.3f}",
            f"≤ {rival:.3f}, the best plain model",
            counts.poisson_deviance_mean <= rival,
        ),
        Row(
            f"{log}, auto: RMSE of the mean",
            f"{counts.rmse_mean:.3f}",
            f"≤ {1.02 * rmse:.3f}, 2 % above the best peer",
            counts.rmse_mean <= 1.02 * rmse,
        ),
        Row(
            f"{log}, auto: MAE of the median",
            f"{counts.mae_median:.3f}",
            f"≤ {0.9 * mae:.3f}, 10 % below the best peer's mean",
            counts.mae_median <= 0.9 * mae,
        ),
    ]
    refused = model.refusal
    for level, inside in (revenue.coverage or {}).items():
        rows.append(
            Row(
                f"{log}, auto: revenue inside of its {level} % interval",
                f"{inside:.1%}" + (f"; not claimed: {refused}" if refused else ""),
                "within 3 points, or not claimed",
                bool(refused) or abs(inside - level / 100) <= 0.03,
            )
        )
    return rows


def run() -> list[Row]:
    """Both logs; without them one row that says how to get them."""
    folder = os.environ.get("CDNOW")
    if not folder:
        return [Row("CDNOW: name a folder with cdnow_sample.csv.gz and cdnow_master.csv.gz in CDNOW", "not measured")]
    rows = []
    for log in PEERS:
        rows += _rows(log, read_orders(Path(folder) / f"cdnow_{log}.csv.gz"))
    return rows
