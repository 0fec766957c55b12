# Each target sets up all that it needs: a virtual environment, pinned versions, the package itself.
#   make suites                    the release gate over the embedded tiny families
#   make suites FAMILY=smollm2     the same over a real model
#   make suites ARGS="--subject student"
#   make test                      the tests
#   make gpu                       those of a GPU, on a machine that has one

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
N ?= auto

.PHONY: suites test slow gpu lint coverage clean

suites: $(INSTALLED)
	$(BIN)/pytest suites/ -n $(N) $(if $(FAMILY),--family $(FAMILY)) $(ARGS)

test: $(INSTALLED)
	$(BIN)/pytest tests/ -n $(N) -m "not slow" $(ARGS)

slow: $(INSTALLED)
	$(BIN)/pytest tests/ -n $(N) -m slow $(ARGS)

gpu: $(INSTALLED)
	SAFETY_HARNESS_TEST_GPU=1 $(BIN)/pytest tests/models/test_gpu.py tests/models/test_cuda_graphs.py -n $(N) $(ARGS)

coverage: $(INSTALLED)
	$(BIN)/pytest tests/ -n $(N) -m "not slow" --cov --cov-report=term:skip-covered $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
