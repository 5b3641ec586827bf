# Two commands set everything up: `make quickstart` and `make test`. Nothing else is needed but Python 3.11+.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := train,data,sweep,report,notebooks,dev
STUDY := results/quickstart
# Two processes, of which one that is idle takes tests from the other.
WORKERS := --numprocesses 2 --dist worksteal

.PHONY: help setup quickstart notebooks bench test test-all lint clean

help:
	@echo "make quickstart  train the small study on this computer, fit, recommend, write $(STUDY)/report.pdf"
	@echo "make test        lint, types and the default tests"
	@echo "make test-all    the same and the long proofs, the quickstart among them"
	@echo "make notebooks   execute the notebooks on $(STUDY) and write them with their outputs"
	@echo "make bench       the engine's speed as ratios, on an idle machine"
	@echo "make setup       only the virtual environment in $(VENV)"

# Installed again only when the list of dependencies changes.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install one or say make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "installing into $(VENV) with $(PYTHON); a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

setup: $(READY)

quickstart: $(READY)
	$(BIN)/scaling sweep run quickstart --out $(STUDY)
	$(BIN)/scaling fit $(STUDY) --law joint-moe --out $(STUDY)/fits/joint-moe.json
	$(BIN)/scaling latency $(STUDY) --out $(STUDY)/latency.json
	$(BIN)/scaling recommend $(STUDY)/fits/joint-moe.json --train-flops 1e13 --serve-tokens 1e10 --device cpu --latency $(STUDY)/latency.json --out $(STUDY)/recommendations/joint-moe.json
	$(BIN)/scaling report $(STUDY) --out $(STUDY)/report.pdf

notebooks: $(READY)
	$(BIN)/python notebooks/execute.py $(STUDY)

bench: $(READY)
	$(BIN)/python -m benchmarks.engine

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest $(WORKERS)

test-all: lint
	$(BIN)/python -m pytest $(WORKERS) -m 'slow or not slow'

clean:
	rm -rf $(VENV) build *.egg-info
