PYTHON ?= python3
VENV ?= .venv
OLDEST_VENV ?= .venv-oldest
ECOSYSTEM_VENV ?= .venv-ecosystem
BIN := $(VENV)/bin
# How many processes the tests share. The tests of one file stay in one process.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --benchmark-disable
# Further requirements for pip, to install another PyTorch:
# make test POLARITY_TORCH="torch==2.6.0 torchvision==0.21.0"
POLARITY_TORCH ?=
# What README.md names as the oldest PyTorch, and its torchvision.
OLDEST := torch==2.6.0 torchvision==0.21.0
# The packages of the extra `ecosystem`, as they are imported, and the tests and pages that name one.
ECOSYSTEM := accelerate distributed lightning onnx onnxruntime onnxscript pandas peft tensorboard timm transformers wandb
EMPTY :=
ECOSYSTEM_PATTERN := (importorskip|find_spec)\(.*"($(subst $(EMPTY) ,|,$(ECOSYSTEM)))[".]
ECOSYSTEM_TESTS = $(sort $(wildcard tests/integrations src/polarity/integrations) \
	$(shell grep -rlE --include=*.py --include=*.md '$(ECOSYSTEM_PATTERN)' tests docs \
		--exclude-dir=integrations))

.PHONY: help demo test test-slow test-gpu test-oldest ecosystem bench coverage fix lint types docs results clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## the Fragility experiment on real digits: a table and a picture in runs/demo
	$(BIN)/python -m benchmarks fragility --dataset digits --epsilon 0 0.5 0.9 --jobs 2 --repeat --out runs/demo

test: $(VENV)/.installed ## every test that finishes in minutes, with the code in docstrings and documentation
	$(PYTEST)

test-slow: $(VENV)/.installed ## the same and the tests that take minutes each
	$(PYTEST) --slow

test-gpu: $(VENV)/.installed ## the tests that need a CUDA device (skipped without one)
	$(BIN)/python -m pytest -m gpu

test-oldest: $(OLDEST_VENV)/.installed ## the library's tests on the oldest PyTorch that is supported
	$(OLDEST_VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --benchmark-disable \
		tests src --ignore=tests/benchmarks --ignore=tests/docs

ecosystem: $(ECOSYSTEM_VENV)/.installed ## what needs Lightning, transformers, timm, Dask and the like; nothing is left out
	$(ECOSYSTEM_VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-skips $(ECOSYSTEM_TESTS)

bench: $(VENV)/.installed ## the timings of docs/results/throughput.md, on this machine (takes long)
	$(BIN)/python -m benchmarks throughput

coverage: $(VENV)/.installed ## which lines of src the tests run, as a table and in htmlcov/
	$(PYTEST) --cov=polarity --cov-branch --cov-report=term-missing:skip-covered --cov-report=html

fix: $(VENV)/.installed ## format the code, and repair what ruff can repair
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

lint: $(VENV)/.installed ## style, documentation and complexity of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed ## mypy --strict on src
	$(BIN)/mypy

docs: $(VENV)/.installed ## the documentation in docs/_build/html; runs the examples that changed
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

results: $(VENV)/.installed ## the pages and pictures of docs/results, from benchmarks/results
	$(BIN)/python -m benchmarks report --results benchmarks/results --out docs/results

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]" $(POLARITY_TORCH)
	touch $@

$(OLDEST_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/pip install -q -e ".[test]" $(OLDEST)
	touch $@

$(ECOSYSTEM_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(ECOSYSTEM_VENV)
	$(ECOSYSTEM_VENV)/bin/pip install -q -e ".[ecosystem]" $(POLARITY_TORCH)
	touch $@

clean: ## remove what was installed, built and run
	rm -rf $(VENV) $(OLDEST_VENV) $(ECOSYSTEM_VENV) docs/_build docs/api docs/gallery docs/sg_execution_times.rst
	rm -rf runs build dist htmlcov .coverage
