PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types docs results clean

# The main job: the Fragility experiment on real handwritten digits, a table and a picture.
demo: $(VENV)/.installed
	$(BIN)/python -m benchmarks fragility --dataset digits --epsilon 0 0.5 0.9 --jobs 2 --out runs/demo

# Every test that finishes in minutes, the docstrings' examples and the documentation's code.
test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# The pages and pictures in docs/results, from the committed result files.
results: $(VENV)/.installed
	$(BIN)/python -m benchmarks report --results benchmarks/results --out docs/results

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) docs/_build runs build dist
