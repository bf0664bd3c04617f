# Each target sets up .venv by itself from nothing. PYTHON may name another interpreter (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long lint setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup  ## a real search of 16 trials on the embedded digits, a few minutes on 2 cores
	$(BIN)/s4 tune --trials 16 --reduction-factor 4

test: setup  ## all tests but the long ones, two layers at a time; seconds a layer and the slowest tests at the end
	$(BIN)/python tests/run_layers.py

test-long: setup  ## tests that only repeat what shorter ones show
	$(BIN)/python -m pytest -m long tests/unit tests/gloo tests/on_ray tests/cluster

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove what make made; runs/ and mlflow.db stay
	rm -rf $(VENV) build *.egg-info
