# Everything runs from a virtual environment in .venv that the first target makes; PYTHON chooses its interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
RUNS ?= 10000000
REQUESTS ?= 1000000
MINUTES ?= 30
STUB_SIDE := server/naiad/server/backends/onnxruntime server/naiad/server/backends/pytorch

.PHONY: help setup demo test test-deploy test-gallery gallery fuzz soak soak-service check types format bench bench-client bench-backend bench-export bench-loadtest bench-gate bench-capacity bench-tune bench-ha bench-gateway bench-gpu test-gpu wheel clean

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

test-deploy: $(READY)  ## tests of deployment: gateway, monitoring, containers, on the real Envoy, Triton, Prometheus (below 25 minutes)
	tests/deploy/install_tools.sh
	PATH="$(CURDIR)/.venv/tools/bin:$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/deploy

test-gpu: $(READY)  ## tests on a real GPU; without one, all are skipped
	$(BIN)/python -m pytest tests/gpu

test-gallery: $(READY)  ## every system of the gallery to its served result, with their tests (below 20 minutes)
	tests/deploy/install_tools.sh
	PATH="$(CURDIR)/.venv/tools/bin:$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/gallery

gallery: $(READY)  ## run every system of the gallery and write what it found into its page (about ten minutes)
	$(BIN)/python docs/gallery/update.py

fuzz: $(READY)   ## RUNS inputs (10 million) for the client's reader of answers, held against protobuf's
	$(BIN)/python -m pip install --quiet atheris==3.0.0
	$(BIN)/python tests/fuzz/response.py -runs=$(RUNS)

soak: $(READY)   ## REQUESTS (a million, about ten minutes) with errors among them: nothing grows, nothing is left
	$(BIN)/python tests/soak/client.py --requests $(REQUESTS)

soak-service: $(READY)  ## MINUTES (30) of a gateway with two replicas at 80 % of their highest rate: nothing fails, nothing grows
	$(BIN)/python tests/soak/service.py --minutes $(MINUTES)

check: $(READY) types  ## style, types, boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for backend in $(STUB_SIDE); do MYPYPATH=$$backend $(BIN)/mypy $$backend/*.py || exit 1; done
	$(BIN)/lint-imports

types: $(READY)  ## the public interface of naiad.client is typed completely; prints the score, fails below 100 %
	PATH="$(CURDIR)/$(BIN):$$PATH" PYRIGHT_PYTHON_IGNORE_WARNINGS=1 pyright --ignoreexternal --verifytypes naiad.client

format: $(READY) ## rewrite what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-client bench-backend bench-export bench-loadtest  ## all comparisons with peers, as ratios within one run

bench-client: $(READY)   ## naiad.client against tritonclient on one server
	$(BIN)/python benchmarks/client.py

bench-backend: $(READY)  ## what the embedded backend adds to ONNX Runtime's own time
	$(BIN)/python benchmarks/backend.py

bench-export: $(READY)   ## real nets served as fp32 and as the fastest candidate, against PyTorch (about five minutes)
	$(BIN)/python benchmarks/export.py

bench-loadtest: $(READY)  ## the load generator against Locust with tritonclient, and perf_analyzer where it is (about eight minutes)
	$(BIN)/python benchmarks/loadtest.py

bench-gate: $(READY)  ## how often the gate errs, and how often it finds 20 % (about a quarter of an hour, on a quiet machine)
	$(BIN)/python benchmarks/gate.py

bench-capacity: $(READY)  ## how often the interval of --find-max holds the truth, on simulated queues (about four minutes)
	$(BIN)/python benchmarks/capacity.py

bench-tune: $(READY)  ## what `naiad tune` gains on two recipes, by its A/B runs (about half an hour, on a quiet machine)
	$(BIN)/python benchmarks/tune.py

bench-ha: $(READY)  ## what callers without retries notice of failures and changes behind the gateway (about ten minutes)
	$(BIN)/python benchmarks/ha.py

bench-gateway: $(READY)  ## what the gateway adds to a request: latency and rate, with TLS and keys (about two minutes)
	$(BIN)/python benchmarks/gateway.py

bench-gpu: $(READY)  ## what serving costs on this machine's GPU, against the same model in-process (about nine minutes)
	PYTHON="$(CURDIR)/$(BIN)/python" benchmarks/gpu.sh --work runs/gpu

wheel: $(READY)  ## build the distribution into dist/
	$(BIN)/python -m build --no-isolation

clean:           ## remove what was built; .venv and model_repository stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
