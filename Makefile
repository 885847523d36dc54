# `make demo`: install, run everything on the embedded sessions, say where the report is.   `make test`: what CI runs.
# uv is used where it is present; plain venv and pip where it is not. --seed: what a person then installs by `pip`
# goes into this environment, too, and not to another Python.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= all
CONFIG ?= config/config.yaml
UV := $(shell command -v uv 2>/dev/null)
# uv does not read pip's setting; bridge it, so that both find the same wheels.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export OMP_WAIT_POLICY ?= PASSIVE
# --configfile takes all that follows it, so it goes before another option.
SNAKEMAKE := $(BIN)/snakemake --configfile $(CONFIG) --cores $(CORES)

.PHONY: help setup demo test test-slow test-gpu test-lowest test-slurm lint audit format docs bench list run data figures status doctor clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(BIN)/.ready: pyproject.toml constraints.txt
ifdef UV
	$(UV) venv --quiet --allow-existing --seed --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[test,lint]' -c constraints.txt
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[test,lint]' -c constraints.txt
endif
	@touch $@

setup: $(BIN)/.ready  ## make the environment in .venv

demo: setup  ## everything, on the embedded sessions: results/report.html
	$(SNAKEMAKE)
	@$(BIN)/python -m pipeline_lib list --config $(CONFIG)
	@echo "The report: $$($(BIN)/python -m pipeline_lib where report --config $(CONFIG))"

# Two processes: a file's tests stay together, since they share what took long to make. A thread each: with two each, they
# wait for one another in every small product of matrices.
test: setup lint  ## lint, types and the test suite (under 15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup  ## the nightly suite: the long checks too
	$(BIN)/python -m pytest -m "not gpu"

test-gpu: setup  ## the tests that need a GPU (skipped where torch finds none)
	$(BIN)/python -m pytest -m gpu -rs

LOWEST := $(VENV)-lowest
test-lowest: setup  ## the test suite with the oldest packages that pyproject.toml allows
	$(BIN)/uv venv --quiet --allow-existing --seed --python $(PYTHON) $(LOWEST)
	$(BIN)/uv pip install --quiet --compile-bytecode --resolution lowest-direct --python $(LOWEST)/bin/python -e '.[test]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile

test-slurm: setup  ## the workflow on a real SLURM started here (root, slurm-wlm and munge; else skipped with the reason)
ifdef UV
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[slurm]' -c constraints.txt
else
	$(BIN)/python -m pip install --quiet -e '.[slurm]' -c constraints.txt
endif
	$(BIN)/python -m pytest -m slurm -rs tests/slurm

lint: setup audit  ## ruff, types, snakefmt, snakemake --lint, and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint --configfile $(CONFIG)

# One package first: where the database cannot be reached, that takes seconds, and nothing is said to be safe.
AUDIT = $(BIN)/uv tool run --quiet pip-audit==2.10.1 --no-deps --disable-pip --progress-spinner off --timeout 5
audit: setup  ## known vulnerabilities of the pinned dependencies, where their database can be reached
	@grep '^numpy==' constraints.txt > $(VENV)/.audited
	@if timeout 60 $(AUDIT) -r $(VENV)/.audited -f json 2>/dev/null | grep -q '"vulns"'; then $(AUDIT) -r constraints.txt; \
	else echo "dependencies not audited: the database of vulnerabilities cannot be reached"; fi

format: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	$(BIN)/snakefmt workflow

docs: $(BIN)/.docs  ## the pages of docs/, executed and built: docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "The pages: docs/_build/html/index.html"

$(BIN)/.docs: $(BIN)/.ready
ifdef UV
	$(UV) pip install --quiet --python $(BIN)/python -e '.[docs]' -c constraints.txt
else
	$(BIN)/python -m pip install --quiet -e '.[docs]' -c constraints.txt
endif
	@touch $@

bench: setup  ## ratios to floors and peers
	$(BIN)/python -m benchmarks

list: setup  ## sessions and models: what is done, what is missing
	@$(BIN)/python -m pipeline_lib list --config $(CONFIG)

run: setup  ## one cell: make run SESSION=... MODEL=... [SEED=0]
	@test -n "$(SESSION)" -a -n "$(MODEL)" || { echo "usage: make run SESSION=... MODEL=... [SEED=0]"; exit 2; }
	@target=$$($(BIN)/python -m pipeline_lib where scores --config $(CONFIG) --cohort $(SESSION) --model $(MODEL) \
		--seed $(or $(SEED),0)) && $(SNAKEMAKE) "$$target"

data: setup  ## fetch and convert the sessions, train nothing
	$(SNAKEMAKE) data

figures: setup  ## the figures only
	$(SNAKEMAKE) figures

status: setup  ## the running fits: step, loss, time left
	@report=$$($(BIN)/python -m pipeline_lib where report --config $(CONFIG)) && \
		$(BIN)/python -m pipeline_lib status --watch --results "$$(dirname "$$report")"

doctor: setup  ## is this machine fit for a run? what to do about what is not
	@$(BIN)/python -m pipeline_lib doctor --config $(CONFIG)

# What Snakemake knows of downloads stays: without it no change of what is asked of them would fetch more.
clean:  ## remove what was made (not the downloads)
	rm -rf results/* results/.*.made_with.json
