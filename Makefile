# Two commands do all the set-up: `make demo` and `make test`. Needs Python 3.10+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The CPU build where there is no NVIDIA card: no CUDA packages are downloaded. TORCH=torch==2.13.0 takes the default one.
TORCH_VERSION := 2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CPU_ONLY := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && echo yes)
TORCH ?= torch==$(TORCH_VERSION)$(if $(CPU_ONLY),+cpu)
DEMO ?= demo

.PHONY: demo test test-slow lint format clean
demo: $(VENV)/installed
	$(BIN)/shortlm run embedded-demo --out $(DEMO)

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "slow or browser" $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --python $(VENV)
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and pinned, so that no other package's wish pulls another build
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "$(TORCH)" -c constraints.txt || $(PIP) install "$(TORCH)" -c constraints.txt --extra-index-url $(TORCH_INDEX)
	$(PIP) install -e '.[eval]' -c constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -e '.[dev,eval,qlora]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
