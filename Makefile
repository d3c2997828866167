# `make demo` and `make test` need nothing but Python >= 3.11: they set up .venv first.
# The installation is redone when pyproject.toml or constraints.txt changes.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check quality docs precommit bench lab calibrate

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# PPO left TRL after this release; the tests train it from a copy beside the installed TRL.
PPO_TRL_VERSION := 1.12.0

SOURCES := trl_diagnostics tests scripts

# The models are tiny: more threads only make them slower. Nothing is ever downloaded from the Hub.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) ## create .venv with everything installed

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, for example: make setup PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV). The first time this takes a few minutes."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@# torch first and by its pin: without the pin pip may fetch gigabytes of GPU libraries
	@$(VENV)/bin/pip install --quiet -c constraints.txt torch
	@$(VENV)/bin/pip install --quiet -c constraints.txt -e ".[trl,report,dev]"
	@$(VENV)/bin/pip install --quiet --no-deps --upgrade --target $(VENV)/trl-$(PPO_TRL_VERSION) trl==$(PPO_TRL_VERSION)
	@touch $@

demo: $(STAMP) ## train tiny models, healthy and broken, and show what is said about them
	$(VENV)/bin/python scripts/demo.py

test: $(STAMP) ## run the fast tests, then those that train
	$(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadfile
	$(VENV)/bin/python -m pytest -m slow

quality: $(STAMP) ## lint, formatting, and generated files up to date
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/python scripts/generate_metric_maps.py --check
	$(VENV)/bin/python scripts/generate_rule_pages.py --check
	$(VENV)/bin/python scripts/calibrate.py --check

check: quality test ## what CI runs: quality, then test

docs: $(STAMP) ## write what is generated: the names in the metric maps, the page of the rules
	$(VENV)/bin/python scripts/generate_metric_maps.py --names-only
	$(VENV)/bin/python scripts/generate_rule_pages.py

precommit: $(STAMP) ## fix and format the code, write everything that is generated
	$(VENV)/bin/ruff check --fix $(SOURCES)
	$(VENV)/bin/ruff format $(SOURCES)
	@$(MAKE) --no-print-directory docs

bench: $(STAMP) ## measure what the diagnostics cost
	$(VENV)/bin/python scripts/bench.py
	$(VENV)/bin/python scripts/bench.py --probes 200

lab: $(STAMP) ## record the runs of the failure lab that are missing in tests/data/runs (two cores, below an hour for all)
	$(VENV)/bin/python scripts/failure_lab/record.py

calibrate: $(STAMP) ## measure how often the rules are right on the recorded runs, and write pages and accuracy.json
	$(VENV)/bin/python scripts/calibrate.py --write
	$(VENV)/bin/python scripts/calibrate.py --roc --write
	@$(MAKE) --no-print-directory docs
