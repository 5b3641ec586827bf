# Two commands set everything up: `make quickstart` and `make test`. Nothing else is needed but Python 3.11+.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := train,data,sweep,report,notebooks,dev
STUDY := results/quickstart
FLAGSHIP := results/flagship
HOURS ?= 3
# Two processes, of which one that is idle takes tests from the other.
WORKERS := --numprocesses 2 --dist worksteal

.PHONY: help setup quickstart flagship flagship-prediction flagship-check flagship-all rates notebooks bench gpu gpu-wheels test test-all lint clean

help:
	@echo "make quickstart  train the small study on this computer, fit, recommend, write $(STUDY)/report.pdf"
	@echo "make test        lint, types and the default tests"
	@echo "make test-all    the same and the long proofs, the quickstart among them"
	@echo "make flagship    go on with the flagship study for HOURS=$(HOURS) on two cores; then make flagship-prediction, flagship-check; flagship-all does all three"
	@echo "make rates       the study of how fast mixtures of experts are learnt, again: an hour or two on two cores"
	@echo "make notebooks   execute the notebooks on $(STUDY) and write them with their outputs"
	@echo "make bench       the engine's speed as ratios, on an idle machine"
	@echo "make gpu         what waits for a GPU, in nine minutes: see docs/gpu.md; make gpu-wheels carries what it lacks there"
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
	$(BIN)/scaling training-speed $(STUDY) --out $(STUDY)/training-speed.json
	$(BIN)/scaling recommend $(STUDY)/fits/joint-moe.json --train-flops 1e13 --serve-tokens 1e10 --device cpu --latency $(STUDY)/latency.json --training-speed $(STUDY)/training-speed.json --out $(STUDY)/recommendations/joint-moe.json
	$(BIN)/scaling report $(STUDY) --out $(STUDY)/report.pdf

# Finished cells are packed, so that they can be committed and the next session goes on with what is missing.
flagship: $(READY)
	$(BIN)/scaling sweep run flagship --out $(FLAGSHIP) --max-hours $(HOURS)
	$(BIN)/scaling sweep pack $(FLAGSHIP) --out $(FLAGSHIP)

# Once the study is complete, on a machine with nothing else to do. Commit its files before the check. The compute is ten
# times that of the largest cell, which `benchmarks.flagship` verifies.
ASKED := --train-flops 4.23e13 --data-tokens 73.5M --device cpu --latency $(FLAGSHIP)/latency.json --training-speed $(FLAGSHIP)/training-speed.json --prompt 64 --generated 64 --max-batch 64
flagship-prediction: $(READY)
	$(BIN)/scaling bench --d-model 48,64,80,96 --n-layers 2,3,4 --n-experts 1,4,8,16,32,64 --top-k 2 --batch 8,64 --context 64,96 --repeats 10 --out $(FLAGSHIP)/bench.parquet
	$(BIN)/scaling latency $(FLAGSHIP)/bench.parquet --out $(FLAGSHIP)/latency.json
	$(BIN)/scaling sweep run flagship-speed --out $(FLAGSHIP)/speed
	$(BIN)/scaling sweep pack $(FLAGSHIP)/speed --out $(FLAGSHIP)/speed
	$(BIN)/scaling training-speed $(FLAGSHIP)/speed --out $(FLAGSHIP)/training-speed.json
	$(BIN)/scaling fit $(FLAGSHIP) --where "n_experts == 1 or top_k == 2" --out $(FLAGSHIP)/fit.json
	$(BIN)/scaling recommend $(FLAGSHIP)/fit.json $(ASKED) --serve-tokens 1e7 --out $(FLAGSHIP)/answer-light.json
	$(BIN)/scaling recommend $(FLAGSHIP)/fit.json $(ASKED) --serve-tokens 1e9 --out $(FLAGSHIP)/answer-heavy.json
	$(BIN)/python -m benchmarks.flagship predict $(FLAGSHIP)

flagship-check: $(READY)
	$(BIN)/scaling sweep run $(FLAGSHIP)/check.yaml --out $(FLAGSHIP)/check --max-hours $(HOURS)
	$(BIN)/scaling sweep pack $(FLAGSHIP)/check --out $(FLAGSHIP)/check
	$(BIN)/python -m benchmarks.flagship compare $(FLAGSHIP)
	$(BIN)/scaling report $(FLAGSHIP) --answer $(FLAGSHIP)/answer-heavy.json --fit $(FLAGSHIP)/fit.json --out $(FLAGSHIP)/report.pdf
	$(BIN)/python notebooks/execute.py $(FLAGSHIP) flagship

# The whole again, in a folder of its own: make flagship-all FLAGSHIP=results/again HOURS=4
flagship-all: flagship flagship-prediction flagship-check

rates: $(READY)
	$(MAKE) -C results/rates BIN=$(abspath $(BIN))

notebooks: $(READY)
	$(BIN)/python notebooks/execute.py $(STUDY)

bench: $(READY)
	$(BIN)/python -m benchmarks.engine

# The day a GPU is there (docs/gpu.md). GPU_PYTHON has JAX for its GPU; wheels in .whl are installed beside its packages.
GPU_PYTHON ?= python3
GPU_OUT ?= results/gpu
GPU_SITE := build/gpu-site
gpu:
	@! ls .whl/*.whl >/dev/null 2>&1 || $(GPU_PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $(GPU_SITE) .whl/*.whl
	PYTHONPATH=$(GPU_SITE) $(GPU_PYTHON) -m benchmarks.gpu --out $(GPU_OUT)

gpu-wheels:
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest .whl --requirement benchmarks/gpu/wheels.txt

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
