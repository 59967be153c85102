# kiki: `make` lists what there is. The two commands to know are `make quickstart` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python that is new enough; override with `make PYTHON=/path/to/python …`.
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$python"; break; fi; done)
endif

VENV ?= .venv
QUICKSTART_VENV ?= .cache/quickstart-venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt

# A stamp in each environment: it is made again when the project's needs change, and only then.
DEV := $(VENV)/.kiki-dev
BENCH := $(VENV)/.kiki-bench
QUICKSTART := $(QUICKSTART_VENV)/.kiki-base
NEEDS := pyproject.toml constraints.txt scripts/make_venv.sh

.PHONY: help quickstart demo-flow demo-engage test lint format bench docs servers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(QUICKSTART) ## set up the base alone and watch a budget being enforced
	@$(QUICKSTART_VENV)/bin/python scripts/quickstart.py

demo-flow: $(QUICKSTART) ## two weeks of campaigns on eight sandbox platforms in a minute, killed again and again
	@$(QUICKSTART_VENV)/bin/python scripts/demo_flow.py $(ARGS)

demo-engage: $(DEV) ## a month of a simulated shop: Shopify, plan, outbox, report, and whether the report tells the truth
	@$(BIN)/python scripts/demo_engage.py $(ARGS)

test: $(DEV) servers ## every test; ARGS="-k scope" narrows them
	$(BIN)/python -m pytest $(ARGS)

lint: $(DEV) ## style, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(DEV) ## let ruff write the code as `make lint` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH) servers ## the measurements of docs/benchmarks.md; ARGS="…" is passed on
	$(BIN)/python -m bench $(ARGS)

docs: $(DEV) ## check that the documentation says what the commands and the guide do
	$(BIN)/python -m pytest -q tests/architecture tests/cli/test_cli.py tests/test_examples.py -k "architecture or documented or examples"

servers: # the real servers that tests and measurements start for themselves
	@scripts/ensure_servers.sh

clean: ## remove what make and the tools made, the environments too
	rm -rf .cache .venv .quickstart build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache .schemathesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV): $(NEEDS)
	@echo "setting up $(VENV) (once, and when pyproject.toml or constraints.txt change)"
	@scripts/make_venv.sh "$(PYTHON)" "$(VENV)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[dev]'
	@touch $@

$(BENCH): $(DEV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[dev,bench]'
	@touch $@

$(QUICKSTART): $(NEEDS)
	@echo "setting up $(QUICKSTART_VENV) with the base install alone (once, takes seconds)"
	@scripts/make_venv.sh "$(PYTHON)" "$(QUICKSTART_VENV)"
	@$(QUICKSTART_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-compile --editable .
	@touch $@
