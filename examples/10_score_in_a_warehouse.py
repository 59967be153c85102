"""Score customers where their orders lie: the summary, the groups and the scores are each one expression of the warehouse.

DuckDB stands for any warehouse that Ibis knows (PostgreSQL, BigQuery, Snowflake, Spark). Only the groups come here: of a billion
orders a few hundred thousand rows.
"""

import tempfile
from datetime import date
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
from shop_orders import write_orders

from kiki.value.fitting import fit_count
from kiki.value.mixture import Mixture
from kiki.value.warehouse import groups_in, purchases_expression, scored_expression

folder = Path(tempfile.mkdtemp())
warehouse = ibis.duckdb.connect(folder / "shop.duckdb")
orders = warehouse.read_csv(write_orders(folder / "orders.csv"), table_name="orders")
calibration_end = date(2024, 12, 31)

# What a fit needs of any number of orders: histories that are the same, counted once. Times are in weeks.
groups = groups_in(orders, calibration_end)
print(f"{groups.customers:.0f} customers are {groups.x.size} different histories")
found = fit_count("pareto-nbd", groups)
mixture = Mixture.of(found.name, found.fit.values)

# Scores of the histories go back, by their days, and are joined to the customers there.
expected = mixture.expected(26, groups)
scores = pa.table(
    {
        "x": groups.x.astype(np.int64),
        "tx": np.rint(groups.tx * 7).astype(np.int64),
        "T": np.rint(groups.t * 7).astype(np.int64),
        "purchases_26_weeks_mean": expected,
        "probability_no_purchase_26_weeks": mixture.no_purchase(26, groups),
    }
)
warehouse.create_table("scores", scored_expression(purchases_expression(orders, calibration_end), scores))

# From here on it is a table like any other.
table = warehouse.table("scores")
total = table.purchases_26_weeks_mean.sum().to_pyarrow().as_py()
print("rows in the warehouse:", table.count().to_pyarrow().as_py())
print("their sum is the model's:", bool(np.isclose(total, groups.weight @ expected)))
for row in table.order_by(ibis.desc("purchases_26_weeks_mean")).limit(3).to_pyarrow().to_pylist():
    print(
        f"{row['ids']}: {row['x']} repeat purchases so far, {row['purchases_26_weeks_mean']:.1f} expected in 26 weeks"
    )
warehouse.disconnect()
