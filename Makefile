# Every target sets itself up: it creates .venv, installs the pinned dependencies of constraints.txt
# once, and needs no activation. After that nothing here needs a network.
#
#   PYTHON       interpreters to try in turn, 3.11 or newer:  make test PYTHON=/opt/python/bin/python3
#   TORCH_INDEX  an additional package index, to choose PyTorch's build yourself. By default it comes
#                from PyPI, on Linux with CUDA (some 3 GB), but where there is no NVIDIA_DRIVER from
#                CPU_INDEX (190 MB), and nothing else does, if that answers within three seconds
#   PYTEST_ARGS  more arguments for pytest:  make test PYTEST_ARGS="-k replay"
#   WHEELS       what `make wheelhouse` downloads, pip options too: WHEELS="--no-deps ale-py gymnasium".
#                PyTorch stays out by default: its build depends on the GPU

PYTHON ?= python3.12 python3.11 python3
NVIDIA_DRIVER ?= $(or $(shell command -v nvidia-smi 2>/dev/null),$(wildcard /proc/driver/nvidia))
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PYTEST_ARGS ?=
WHEELS ?= $(shell $(BIN)/python -c "$(REQUIREMENTS_BUT_TORCH)")

VENV := .venv
FLOORS := .venv-floors
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet
INSTALL := $(PIP) install --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

CPU_TORCH_SUFFICES = [ -z "$(NVIDIA_DRIVER)$(TORCH_INDEX)" ] && \
	timeout 3 $(BIN)/python -c "import urllib.request as r; r.urlopen('$(CPU_INDEX)/torch/')" 2>/dev/null

define REQUIREMENTS_BUT_TORCH
import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*(repr(r) for r in project['dependencies'] if not r.startswith('torch')))
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-hours test-floors check lint types format wheelhouse clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.runtime  ## watch a pretrained agent, train on two games, compare, film dreams into demo/
	@$(BIN)/stormrl demo --out demo

test: $(VENV)/.dev  ## run the fast tests
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4 --durations 5 $(PYTEST_ARGS)

test-slow: $(VENV)/.dev  ## run the slow tests, which learn whole games
	@STORMRL_TYPECHECK=0 $(BIN)/pytest -m slow --durations 0 $(PYTEST_ARGS)

test-hours: $(VENV)/.dev  ## run the tests that learn HiddenCatch, a quarter of an hour each
	@STORMRL_TYPECHECK=0 $(BIN)/pytest -m hours --durations 0 $(PYTEST_ARGS)

test-floors: $(BIN)/pip  ## run the fast tests on the lowest versions that pyproject.toml allows (3 GB with CUDA)
	@$(BIN)/python -m venv --clear $(FLOORS)
	@$(FLOORS)/bin/python -m pip --quiet install uv
	@$(FLOORS)/bin/uv pip compile --quiet --resolution lowest-direct --extra dev \
		--output-file $(FLOORS)/lowest.txt pyproject.toml
	@$(FLOORS)/bin/uv pip install --quiet --python $(FLOORS)/bin/python \
		--requirement $(FLOORS)/lowest.txt hatchling editables
	@$(FLOORS)/bin/uv pip install --quiet --python $(FLOORS)/bin/python --no-deps \
		--no-build-isolation --editable .
	@$(FLOORS)/bin/pytest --numprocesses auto --maxprocesses 4 $(PYTEST_ARGS)

check: lint types test  ## run everything that must pass before a commit

lint: $(VENV)/.dev  ## check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.dev  ## check types
	@$(BIN)/pyright

format: $(VENV)/.dev  ## format the code and mend what can be mended
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

wheelhouse: $(BIN)/pip  ## fill wheelhouse/ for a machine with Python 3.12, PyTorch and no network
	@rm -rf wheelhouse
	@$(PIP) download --constraint constraints.txt --dest wheelhouse \
		--python-version 3.12 --only-binary :all: $(WHEELS)
	@du -sh wheelhouse

clean:  ## remove .venv, caches and the demo
	@rm -rf $(VENV) $(FLOORS) .hypothesis .pytest_cache .ruff_cache build demo dist wheelhouse
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@for python in $(PYTHON) ""; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	[ -n "$$python" ] || { echo "stormrl needs Python 3.11 or newer, none found; give one: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$$python" -c 'import ensurepip' 2>/dev/null || { echo "$$python has no venv module: apt install python3-venv" >&2; exit 1; }; \
	"$$python" -m venv $(VENV)

# The build backend is installed beside the package, not fetched again in isolation for every build.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing stormrl into $(VENV) (once; this takes a minute or more) ..."
	@if $(CPU_TORCH_SUFFICES); then \
		echo "Downloading PyTorch for CPUs (190 MB, from $(CPU_INDEX)) and other packages (200 MB) ..."; \
		$(PIP) install --no-deps --index-url $(CPU_INDEX) $$(grep ^torch== constraints.txt) || \
			echo "That failed; PyTorch comes from PyPI (some 3 GB with CUDA) ..."; \
	else \
		echo "Downloading PyTorch (from $(or $(TORCH_INDEX),PyPI); some 3 GB with CUDA) and other packages (200 MB) ..."; \
	fi
	@$(INSTALL) hatchling editables
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing the tools for tests and checks into $(VENV) (once) ..."
	@$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@
