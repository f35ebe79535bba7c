# mirasol: `make demo` runs the whole pipeline, `make test` the tests. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do "$$p" -c '$(FITS)' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
GPU_PYTHON ?= $(firstword $(wildcard $(BIN)/python) $(PYTHON))
READY := .venv/.ready
# The build of torch: cpu, cuda (as on the package index), the URL of an index, or a requirement like torch==2.14.1.
TORCH ?= $(shell { ls /dev/nvidia[0-9]* || timeout 20 nvidia-smi -L; } >/dev/null 2>&1 && echo cuda || echo cpu)
CHOSEN := $(if $(filter command environment,$(firstword $(origin TORCH))),$(TORCH))
OTHER_TORCH := $(if $(CHOSEN),$(filter-out $(shell cat .venv/.torch 2>/dev/null),$(CHOSEN)))
CPU_INDEX := https://download.pytorch.org/whl/cpu
ANSWERS := import signal, sys, urllib.request; signal.alarm(10); urllib.request.urlopen(sys.argv[1], timeout=5)
BUILD := import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])
PIP := $(BIN)/python -m pip --disable-pip-version-check
# awk: pip's output as one line per twenty packages
COUNT := \
  function count(name) { sub(/[<>=!~;[].*/, "", name); sub(/.*\//, "", name); sub(/-[0-9].*/, "", name); \
    name = tolower(name); gsub(/[_.]/, "-", name); if (!(name in seen)) { seen[name]; n++; \
    if (n % 20 == 0) { print "[setup] fetched " n "/" all; fflush() } } } \
  /^(Collecting|Processing) / { count($$2) } \
  /^Requirement already satisfied: / { count($$4) } \
  /^Installing collected/ { print "[setup] unpacking: a minute or two"; fflush() }
QUIET ?= --quiet
DATA ?=
PARAMS ?=
FROM ?=
UNLABELLED ?=
ADAPTER ?= generic
ANNOTATIONS ?=
IMPORT ?=
DRONE ?=
FSDD ?=

.PHONY: help setup try demo real real-where test test-all test-cluster test-gpu gpu-check lint types bench report dist lock again

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## install everything into .venv; torch without CUDA where no GPU is seen: TORCH=cpu|cuda|INDEX|REQUIREMENT

# torch comes first, in a separate call: then no other package decides its build. An index that does not answer within
# ten seconds is left out: what pip is configured to use decides.
$(READY): requirements.lock pyproject.toml $(if $(OTHER_TORCH),again)
	@"$(PYTHON)" -c '$(FITS)' 2>/dev/null || { \
	  echo "mirasol needs Python 3.11 to 3.14, and $(if $(PYTHON),$(PYTHON) is none,none was found)." >&2; \
	  echo "Install one, then name it: make setup PYTHON=/path/to/python3.14" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "[setup] making .venv with $$("$(PYTHON)" --version)"; "$(PYTHON)" -m venv .venv || { \
	  rm -rf .venv; echo "No virtual environment could be made: on Debian and Ubuntu install python3-venv" >&2; exit 2; }; }
	@$(if $(OTHER_TORCH),$(PIP) uninstall --quiet --yes torch)
	@grep -v '^torch==' requirements.lock > .venv/lock
	@build="$(TORCH)"; torch="$$(grep -E '^torch==' requirements.lock)"; index=; \
	case "$$build" in \
	  cpu) index=$(CPU_INDEX);; cuda) ;; *://*) index="$$build";; *) torch="$$build"; build=given;; \
	esac; \
	echo "[setup] $$torch, build: $$build (200 MB for cpu, gigabytes for cuda)"; \
	if [[ $$build == cpu ]] && ! $(BIN)/python -c '$(ANSWERS)' $$index/torch/ 2>/dev/null; then \
	  echo "[setup] $$index does not answer: torch comes from the package index, with CUDA if that has no other"; index=; \
	fi; \
	if [[ $$index ]] && $(PIP) install -c .venv/lock --extra-index-url "$$index" "$$torch"; then exit 0; fi; \
	[[ -z $$index || $$build == cpu ]] && $(PIP) install -c .venv/lock "$$torch"
	@echo "[setup] all other packages"
	@$(PIP) install --progress-bar off -r .venv/lock 2>&1 | tee .venv/setup.log \
	  | awk -v all="$$(grep -cE '^[A-Za-z]' .venv/lock)" '$(COUNT)' \
	  || { tail -n 20 .venv/setup.log >&2; echo "[setup] failed: the whole log is in .venv/setup.log" >&2; exit 1; }
	@$(PIP) uninstall --quiet --yes mirasol 2>/dev/null  # the distribution's former name, and that of another project
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@echo "$(TORCH)" > .venv/.torch
	@touch $(READY)
	@echo "[setup] ready: $(BIN)/mirasol --help"

try: .venv-try/.ready ## an answer in a minute: the runtime alone, a small trained model, sample clips and the page
	@.venv-try/bin/mirasol try

.venv-try/.ready: pyproject.toml requirements.lock
	@"$(PYTHON)" -c '$(FITS)' || { echo "mirasol needs another Python: make try PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "[try] fetching the runtime into .venv-try, without torch"
	@"$(PYTHON)" -m venv .venv-try
	@.venv-try/bin/python -m pip --disable-pip-version-check install $(QUIET) -c requirements.lock -e '.[serve]'
	@touch $@

# Each run ends with one screen: result, report, bundle, next command.
# On your own data: DATA=dir [PARAMS=file] [FROM=weights] [UNLABELLED=dir] [ADAPTER=name ANNOTATIONS=path IMPORT="options of mirasol data import"]
demo: setup ## the whole pipeline on the built-in world; DATA=dir [FROM=weights PARAMS=file ...]: on your own
ifeq ($(DATA),)
	@test -f data/manifest.jsonl || $(BIN)/mirasol world --out data
	@$(BIN)/mirasol run
else
	@$(call own,$(notdir $(abspath $(DATA))),$(DATA),$(PARAMS),$(ADAPTER),$(ANNOTATIONS),$(IMPORT))
endif

real: $(if $(DRONE)$(FSDD),setup,real-where) ## real recordings: DRONE=dir (seen and heard) and FSDD=dir (heard), either or both
	@$(if $(DRONE),$(call own,drone,$(DRONE),recipes/drone.yaml,drone))
	@$(if $(FSDD),$(call own,fsdd,$(FSDD),recipes/fsdd.yaml,fsdd))

real-where:
	@echo "Say where the data are: make real DRONE=dir FSDD=dir" >&2; exit 2

# own: name, media, params file, adapter, annotations, options of the import: the pipeline in a separate workspace
own = folder="$$($(BIN)/mirasol workspace "$(1)" --data "$(2)" $(if $(3),--params "$(3)") --adapter $(4) \
	  $(if $(FROM),--from "$(FROM)") $(if $(UNLABELLED),--unlabelled "$(UNLABELLED)") $(if $(5),--annotations "$(5)") $(if $(6),-- $(6)))"; \
	$(BIN)/mirasol run --workspace "$$folder"

test: setup ## the tests that a change must pass
	@$(BIN)/python -m pytest

test-all: setup ## every test that needs no GPU, the slow ones too
	@$(BIN)/python -m pytest -m "not gpu"

# Slurm from Debian's packages, unpacked into .slurm: nothing is installed, and no root is needed.
SLURM := slurmctld slurmd slurm-client munge
test-cluster: setup ## the tests that need Slurm; its packages are unpacked into .slurm, where apt-get may fetch them
	@test -d .slurm/usr || ! command -v apt-get >/dev/null || { rm -rf .slurm.part; mkdir .slurm.part; cd .slurm.part; \
	  echo "[test-cluster] fetching Slurm"; \
	  apt-get -s install --no-install-recommends $(SLURM) | awk '/^Inst/ { print $$2 }' | xargs -r apt-get -q download && \
	  for file in *.deb; do dpkg -x "$$file" . || exit; done && cd .. && rm -rf .slurm && mv .slurm.part .slurm; } || true
	@$(BIN)/python -m pytest -m cluster tests/cluster

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

# The files of a release, from the last commit alone.
dist: setup ## wheel, sdist and the shipped bundle of the last commit, with their SHA-256, in dist/
	@rm -rf dist; mkdir dist; source="$$(mktemp -d)"; trap 'rm -rf "$$source"' EXIT; \
	python="$$(realpath -s $(BIN)/python)"; out="$$PWD/dist"; export SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)"; \
	git archive HEAD | tar -x -C "$$source"; cd "$$source"; \
	for kind in build_wheel build_sdist; do \
	  "$$python" -c '$(BUILD)' $$kind "$$out" >log 2>&1 || { cat log >&2; exit 1; }; done; \
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$$SOURCE_DATE_EPOCH" -C src/mirasol -c try \
	  | gzip -n >"$$out/mirasol-try.tar.gz"; \
	cd "$$out"; sha256sum -- *.whl *.tar.gz | tee SHA256SUMS

lock: ## write requirements.lock from the packages in .venv
	@{ grep '^#' requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable \
	  | grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^(pip|wheel)==' | sed -E 's/\+[A-Za-z0-9.]+$$//' | LC_ALL=C sort -f; } > .lock.tmp
	@mv .lock.tmp requirements.lock
