# mirasol: `make demo` runs the whole pipeline, `make test` the tests. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do "$$p" -c '$(FITS)' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
GPU_PYTHON ?= $(firstword $(wildcard $(BIN)/python) $(PYTHON))
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
# awk: pip's output as one line per twenty packages
COUNT := \
  function count(name) { sub(/[<>=!~;[].*/, "", name); sub(/.*\//, "", name); sub(/-[0-9].*/, "", name); \
    name = tolower(name); gsub(/[_.]/, "-", name); if (!(name in seen)) { seen[name]; n++; \
    if (n % 20 == 0) { print "[setup] fetched " n "/" all; fflush() } } } \
  /^(Collecting|Processing) / { count($$2) } \
  /^Requirement already satisfied: / { count($$4) } \
  /^Installing collected/ { print "[setup] unpacking: a minute or two"; fflush() }
DATA ?=
PARAMS ?=
ADAPTER ?= generic
ANNOTATIONS ?=
IMPORT ?=
DRONE ?=
FSDD ?=

.PHONY: help setup demo real test test-all test-gpu gpu-check lint types bench report lock

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## install everything into .venv: minutes once, a second after

# torch comes first, in a separate call: then no other package decides its build.
$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(FITS)' 2>/dev/null || { \
	  echo "mirasol needs Python 3.11 or 3.12, and $(if $(PYTHON),$(PYTHON) is none,none was found)." >&2; \
	  echo "Install one, then name it: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "[setup] making .venv with $$("$(PYTHON)" --version)"; "$(PYTHON)" -m venv .venv || { \
	  rm -rf .venv; echo "No virtual environment could be made: on Debian and Ubuntu install python3-venv" >&2; exit 2; }; }
	@echo "[setup] torch (about 200 MB, more with CUDA)"
	@$(PIP) install -c requirements.lock "$$(grep -E '^torch==' requirements.lock)"
	@echo "[setup] all other packages"
	@$(PIP) install --progress-bar off -r requirements.lock 2>&1 | tee .venv/setup.log \
	  | awk -v all="$$(grep -cE '^[A-Za-z]' requirements.lock)" '$(COUNT)' \
	  || { tail -n 20 .venv/setup.log >&2; echo "[setup] failed: the whole log is in .venv/setup.log" >&2; exit 1; }
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)
	@echo "[setup] ready: $(BIN)/mirasol --help"

# Each run ends with the figures and the path of the report.
# On your own data: DATA=dir [PARAMS=file] [ADAPTER=name ANNOTATIONS=path IMPORT="options of mirasol data import"]
demo: setup ## the whole pipeline on the built-in world; DATA=dir [PARAMS=file ADAPTER=name ...]: on your own
ifeq ($(DATA),)
	@test -f data/manifest.jsonl || $(BIN)/mirasol world --out data
	@$(BIN)/mirasol run
	@$(BIN)/mirasol report --markdown
	@echo "Report: $(CURDIR)/build/report/index.html"
else
	@$(call own,$(notdir $(abspath $(DATA))),$(DATA),$(PARAMS),$(ADAPTER),$(ANNOTATIONS),$(IMPORT))
endif

real: setup ## real recordings: DRONE=dir (seen and heard) and FSDD=dir (heard), either or both
	@test -n "$(DRONE)$(FSDD)" || { echo "Say where the data are: make real DRONE=dir FSDD=dir" >&2; exit 2; }
	@$(if $(DRONE),$(call own,drone,$(DRONE),recipes/drone.yaml,drone))
	@$(if $(FSDD),$(call own,fsdd,$(FSDD),recipes/fsdd.yaml,fsdd))

# own: name, media, params file, adapter, annotations, options of the import: the pipeline in a separate workspace
own = folder="$$($(BIN)/mirasol workspace "$(1)" --data "$(2)" $(if $(3),--params "$(3)") --adapter $(4) \
	  $(if $(5),--annotations "$(5)") $(if $(6),-- $(6)))"; \
	$(BIN)/mirasol run --workspace "$$folder"; \
	cd "$$folder"; "$(CURDIR)/$(BIN)/mirasol" report --markdown; \
	echo "Report: $$folder/build/report/index.html"

test: setup ## the tests that a change must pass
	@$(BIN)/python -m pytest

test-all: setup ## every test that needs no GPU, the slow ones too
	@$(BIN)/python -m pytest -m "not gpu"

test-gpu: setup ## the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu

# From a bare checkout: the machine's torch, pytorch-lightning and numpy, or those of .venv where that exists.
gpu-check: ## what needs a GPU, in eight minutes -> runs/gpu_check.json; GPU_PYTHON=/path/to/python
	@PYTHONPATH=src "$(GPU_PYTHON)" benchmarks/gpu_check.py --json runs/gpu_check.json

lint: setup ## ruff: rules and layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## mypy: strict where users build on it (pyproject.toml)
	@$(BIN)/mypy

bench: setup ## every benchmark of benchmarks/, each a ratio with its spread
	@for file in $$(grep -l '^if __name__' benchmarks/*.py); do echo "[bench] $$file"; $(BIN)/python "$$file"; done

report: setup ## build/report/index.html from build/ and reports/
	@$(BIN)/mirasol report

lock: ## write requirements.lock from the packages in .venv
	@{ grep '^#' requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable \
	  | grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^(pip|wheel)==' | sed -E 's/\+[A-Za-z0-9.]+$$//' | LC_ALL=C sort -f; } > .lock.tmp
	@mv .lock.tmp requirements.lock
