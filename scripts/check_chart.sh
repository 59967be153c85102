#!/usr/bin/env bash
# The chart before it is released: nine Kubernetes minors on three clouds in three profiles, checkov over every render, and
# charts spoilt on purpose. checkov wants other versions than kiki, so it has an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

CHECKOV_VERSION=3.3.30
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || make --no-print-directory .venv/.kiki-dev
checkov=${CHECKOV:-.cache/checkov-venv/bin/checkov}
if [ ! -x "$checkov" ]; then
  "$python" -m venv .cache/checkov-venv
  .cache/checkov-venv/bin/python -m pip install --quiet --disable-pip-version-check "checkov==$CHECKOV_VERSION"
fi

CHECKOV="$checkov" "$python" -m bench.chart_matrix
"$python" -m bench.chart_mutants
