# Everything runs from a virtual environment in .venv that the first target makes; PYTHON chooses its interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
STUB_SIDE := server/naiad/server/backends/onnxruntime

.PHONY: help setup demo test check types format bench bench-client bench-backend wheel clean

help:            ## what there is to run
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile

setup: $(READY)  ## make .venv with everything installed

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)   ## the whole way on a small real model: train, export, serve, call, roll back, load-test
	$(BIN)/naiad demo

test: $(READY)   ## all tests, on the real Triton
	$(BIN)/python -m pytest

check: $(READY) types  ## style, types, boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=$(STUB_SIDE) $(BIN)/mypy $(STUB_SIDE)/*.py
	$(BIN)/lint-imports

types: $(READY)  ## the public interface of naiad.client is typed completely; prints the score, fails below 100 %
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --ignoreexternal --verifytypes naiad.client

format: $(READY) ## rewrite what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-client bench-backend  ## all comparisons with peers, as ratios within one run

bench-client: $(READY)   ## naiad.client against tritonclient on one server
	$(BIN)/python benchmarks/client.py

bench-backend: $(READY)  ## what the embedded backend adds to ONNX Runtime's own time
	$(BIN)/python benchmarks/backend.py

wheel: $(READY)  ## build the distribution into dist/
	$(BIN)/python -m build --no-isolation

clean:           ## remove what was built; .venv and model_repository stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
