# Every target sets up what it needs: a virtual environment, the pinned versions, the package itself.
#
#   make suites FAMILY=smollm2                   Gate another family
#   make suites ARGS="--gate-subject student"         Give pytest more options
#   make test N=4                                Use another number of processes

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
N ?= auto
PYTEST := $(BIN)/pytest -n $(N)
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
TORCH ?= -c constraints.txt torch

.PHONY: help suites test slow gpu coverage lint wheel clean

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-40s%s\n", $$1, $$2 }' Makefile
	@sed -n 's/^#   //p' Makefile

suites: $(INSTALLED) ## Gate the embedded tiny students
	$(PYTEST) suites/ $(if $(FAMILY),--gate-family $(FAMILY)) $(ARGS)

test: $(INSTALLED) ## Run the tests, the slow ones excepted
	$(PYTEST) tests/ -m "not slow" $(ARGS)

slow: $(INSTALLED) ## Run the slow tests
	$(PYTEST) tests/ -m slow $(ARGS)

gpu: $(INSTALLED) ## Run the tests of a GPU, on a machine that has one
	SAFETY_HARNESS_TEST_GPU=1 $(PYTEST) tests/models/test_gpu.py tests/models/test_cuda_graphs.py tests/plugin/test_side_by_side.py $(ARGS)

coverage: $(INSTALLED) ## Run the tests, and print which lines they do not reach
	$(PYTEST) tests/ -m "not slow" --cov --cov-report=term:skip-covered $(ARGS)

lint: $(INSTALLED) ## Check style, formatting, types and the imports between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

wheel: $(INSTALLED) ## Build the wheel into dist/ (make test checks what it holds)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## Remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info

# Without --no-compile pip compiles every module of every package; Python compiles those that are imported. Every file
# is held against its hash, but torch: each index has a build of its own (SECURITY.md says how to pin yours).
$(INSTALLED): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes -r requirements.lock
	$(PIP) $(TORCH)
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check --disable-pip-version-check
	touch $@
