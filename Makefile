# Two commands do everything on a fresh machine: `make demo` asks the bundled model, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check install clean

demo: install
	$(BIN)/langnorm ask "Mia has 12 boxes with 14 pens each. She gives 39 pens to Tom. How many pens does Mia have?"

test: check
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv
