# One command for everything; CI calls the same targets. `make` = check + test.
PYTHON ?= python3
CHROMIUM ?= chromium
HOURS ?= 8
VENV := .venv
BIN := $(VENV)/bin
# what is never imported need not be compiled: it takes longer than fetching it
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt

# the matrices here are small: on a busy machine more threads wait for each other for longer than they work
export OMP_NUM_THREADS ?= 1
# installed without bytecode, the libraries would be compiled anew at every start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all demo test test-all check fix docs examples bench picture clean
.DELETE_ON_ERROR:

all: check test

# ---- the environment: a stamp per step, so that a second call does nothing and needs no network

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch alone and first: the wheel that is there or that the index prefers, before anything else can ask for another
$(VENV)/.torch: | $(BIN)/python
	$(PIP) torch==2.13.0
	@touch $@

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP) -e ".[lm,policy,hub,excel,dev]"
	@touch $(VENV)/.core $@

# ---- what it does

demo: $(VENV)/.core  ## the built-in study with known truth
	$(BIN)/seamark study demo -o demo
	@echo "The report is $(CURDIR)/demo/report.html"

# ---- is it right

test: $(VENV)/.dev  ## all but the slow statistical runs; ARGS goes to pytest
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-all: $(VENV)/.dev  ## all tests, then whether intervals cover: it resumes where it was stopped, HOURS at most
	$(BIN)/python -m pytest $(ARGS)
	$(BIN)/python benchmarks/calibration.py --budget-hours $(HOURS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --threads 2

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

examples: $(VENV)/.dev
	@set -e; for file in examples/*.py; do echo "== $$file"; $(BIN)/python $$file; done

bench: $(VENV)/.dev  ## time and memory beside the peers, of reading and of studies, then accuracy on real debates; ARGS goes to speed.py
	$(PIP) -e ".[bench]"
	$(BIN)/python benchmarks/speed.py $(ARGS)
	$(BIN)/python benchmarks/speed.py --write
	$(BIN)/python benchmarks/run.py
	@if [ -n "$$SEAMARK_TEST_DATA" ]; then $(BIN)/python benchmarks/debates.py; \
	  else echo "debates: not run, SEAMARK_TEST_DATA is not set (docs/data.md)"; fi

# ---- what is generated

docs: $(VENV)/.dev  ## docs/cli.md, docs/formats.md and docs/api.md; a test fails when they are stale
	$(BIN)/python docs/generate.py

picture: demo  ## docs/report.png
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
	  --disable-component-update --disable-sync --disable-quic --hide-scrollbars --window-size=1080,1320 \
	  --virtual-time-budget=20000 --screenshot=docs/report.png file://$(CURDIR)/demo/report.html

clean:
	rm -rf demo build dist .pytest_cache .ruff_cache .hypothesis
