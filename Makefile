# Two commands do everything on a fresh machine: `make demo` asks the bundled model, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin

LLAMACPP := build/llamacpp
LM_EVAL := build/lm-eval
# For what every processor of this kind can do: a build for this one may be tried on another, which then crashes. Models of
# tests are small: it matters more how long the compiler takes.
LLAMACPP_ARGS := -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1
ifeq ($(shell uname -m),x86_64)
LLAMACPP_ARGS += -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
endif

.PHONY: demo test test-llamacpp test-lm-eval quick fuzz soak check install hooks clean

demo: install
	$(BIN)/langnorm ask "Mia has 12 boxes with 14 pens each. She gives 39 pens to Tom. How many pens does Mia have?"

# Everything, with the share of the code that the tests run.
test: check
	$(BIN)/python -m pytest --numprocesses auto --cov
	$(MAKE) test-llamacpp
	$(MAKE) test-lm-eval

# The tests of the llama.cpp engine, with a llama-cpp-python of their own. Compiling it takes some minutes, once.
test-llamacpp: $(LLAMACPP)/installed
	PYTHONPATH=$(LLAMACPP) $(BIN)/python -m pytest --numprocesses auto tests/llamacpp tests/unit/engines/llamacpp
	PYTHONPATH=$(LLAMACPP) LANGNORM_TEST_ENGINE=llamacpp $(BIN)/python -m pytest --numprocesses auto \
		tests/bundled/retry tests/bundled/selection tests/bundled/middleware tests/bundled/chat

$(LLAMACPP)/installed: .venv/installed
	CMAKE_ARGS="$(LLAMACPP_ARGS)" $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps \
		--upgrade --target $(LLAMACPP) llama-cpp-python diskcache
	touch $@

# The tests of the model for lm-evaluation-harness, with a harness of its own, which is half a gigabyte.
test-lm-eval: $(LM_EVAL)/installed
	PYTHONPATH=$(LM_EVAL) $(BIN)/python -m pytest tests/lm_eval

$(LM_EVAL)/installed: .venv/installed tests/lm_eval/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(LM_EVAL) --requirement tests/lm_eval/requirements.txt
	touch $@

# What to run before each commit: below a minute, no model is loaded, and properties are tried on fewer cases.
quick: check
	$(BIN)/python -m pytest --quiet --numprocesses auto --hypothesis-profile quick tests/unit

# Ten thousand cases drawn at random: none may end in a bare error or in a hang. Some minutes.
fuzz: install
	$(BIN)/python -m tests.support.fuzz

# Two thousand mixed requests from threads and tasks at once: every answer must be the lone one. About ten minutes.
soak: install
	$(BIN)/python -m benchmarks.soak

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Git then runs the linters before each commit.
hooks: install
	$(BIN)/pre-commit install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

clean:
	rm -rf .venv $(LLAMACPP) $(LM_EVAL)
