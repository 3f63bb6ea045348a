# Two commands do all the set-up: `make demo` and `make test`. Needs Python 3.10+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
QUIET := --disable-pip-version-check --quiet
PIP := $(BIN)/python -m pip $(QUIET)
# The CPU build where there is no NVIDIA card: no CUDA packages are downloaded. TORCH=torch==2.13.0 takes the default one.
TORCH_VERSION := 2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CPU_ONLY := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && echo yes)
TORCH ?= torch==$(TORCH_VERSION)$(if $(CPU_ONLY),+cpu)
DEMO ?= demo
FLOOR_TESTS := cut score choose search heal evaluate bench sublayers_cut recipes
define install_torch
$(1)/bin/python -m pip $(QUIET) install "$(TORCH)" -c constraints.txt || $(1)/bin/python -m pip $(QUIET) install "$(TORCH)" -c constraints.txt --extra-index-url $(TORCH_INDEX)
endef

.PHONY: demo test test-slow test-wheel test-floor docs lint format clean
demo: $(VENV)/installed
	$(BIN)/shortlm run embedded-demo --out $(DEMO)

test: $(VENV)/installed-dev lint
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "slow or browser" $(ARGS)

# What a pip user gets: the wheel, made from the source distribution, in an environment of its own, used away from here
test-wheel: $(VENV)/installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(call install_torch,$(VENV)-wheel)
	$(VENV)-wheel/bin/python -m pip $(QUIET) install dist/*.whl -c constraints.txt
	$(VENV)-wheel/bin/python tests/outside.py

# The suite's core on the oldest versions that pyproject.toml allows
test-floor: $(VENV)-floor/installed
	$(VENV)-floor/bin/python -m pytest -W ignore::DeprecationWarning $(addprefix tests/test_,$(addsuffix .py,$(FLOOR_TESTS))) $(ARGS)

$(VENV)-floor/installed: pyproject.toml tests/floors.py
	$(PYTHON) -m venv --clear $(VENV)-floor
	$(call install_torch,$(VENV)-floor)
	$(PYTHON) tests/floors.py > $(VENV)-floor/floors.txt
	$(VENV)-floor/bin/python -m pip $(QUIET) install -e '.[heal,qlora,eval,bench]' pytest pytest-timeout hypothesis -c $(VENV)-floor/floors.txt
	touch $@

# The site of the docs in site/; a broken link or a missing page is an error
docs: $(VENV)/installed-docs
	$(BIN)/zensical build --strict --clean

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) install -e '.[docs]' -c constraints.txt
	touch $@

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
	$(call install_torch,$(VENV))
	$(PIP) install -e '.[eval]' -c constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -e '.[dev,eval,qlora,quantize,demo]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-floor $(VENV)-wheel build dist src/*.egg-info
