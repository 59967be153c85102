"""From an order log to a model file, forecasts with intervals, plots and a report. The same as `kiki ltv fit orders.csv`."""

import tempfile
from datetime import date
from pathlib import Path

from shop_orders import write_orders

from kiki.value.fitted_model import FittedModel
from kiki.value.model_pictures import model_pictures
from kiki.value.model_report import model_report
from kiki.value.order_log import read_orders
from kiki.value.plots import save
from kiki.value.purchases import summarise
from kiki.value.report import write_report
from kiki.value.training import fit

folder = Path(tempfile.mkdtemp())
orders = read_orders(write_orders(folder / "orders.csv"))

# The first year is for fitting. The rest of the log is for looking how right the model was.
model = fit(orders, model="pareto-nbd", calibration_end=date(2024, 12, 31), horizon=24)
part = model.parts[0]
print(f"{part.model}, log likelihood {part.log_likelihood:.1f}, converged: {part.gradient_max < 1e-7}")
for name, value in part.parameters.items():
    print(f"  {name:5} {value:8.3f} ± {part.standard_errors[name]:.3f}")

# A file without anybody's name in it; whoever loads it gets the same forecasts.
model.save(folder / "shop.model.json")
model = FittedModel.load(folder / "shop.model.json")

purchases = summarise(orders, model.calibration_end, model.unit)
predictions = model.predict(purchases)
best = predictions.row(int(predictions.revenue.mean.argmax()))
print(f"best customer: {best.id}, {best.purchases.mean:.1f} purchases expected in {best.horizon:g} {best.unit}s,")
print(f"  revenue between {best.revenue.lower[90]:.0f} and {best.revenue.upper[90]:.0f} with 90 %")
print(f"all {len(predictions)} customers: {predictions.revenue.mean.sum():,.0f} expected")

for name, picture in model_pictures(model, orders).items():
    save(picture.figure, folder / f"{name}.svg")
report = write_report(folder / "report.html", model_report(model, orders))
print("plots:", ", ".join(sorted(path.stem for path in folder.glob("*.svg"))))
print("report:", report.name, report.stat().st_size > 50_000)
