# Two commands for newcomers: `make up` runs the service, `make test` checks everything.
# Needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help up test lint types floors demo bench season chaos requirements clean

help:
	@echo "make up      set up, and run the service on http://127.0.0.1:8200"
	@echo "make test    set up, and run every check and test"
	@echo "make demo    a wedding day in a minute: service, receivers and a failure"
	@echo "make bench   measure the whole system; results go to bench/results"
	@echo "make season  a month of a wedding season in some minutes, with a report"
	@echo "make chaos   break things while traffic flows, and look for lost events"

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Ringbearer needs Python 3.11 or newer; $(PYTHON) is older. Try: make up PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/base: $(VENV)/made requirements/base.txt pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/base.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: $(VENV)/base requirements/dev.txt
	@echo "Installing what the tests need …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

up: $(VENV)/base
	@exec $(BIN)/ringbearer up

lint: $(VENV)/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/dev
	@$(BIN)/mypy

floors: $(VENV)/dev
	@$(BIN)/lint-imports --no-cache

# Three processes on two cores, since many tests wait; those over whole systems come first, for they take longest.
test: lint types floors
	@$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

demo: $(VENV)/dev
	@$(BIN)/ringbearer demo

$(VENV)/bench: $(VENV)/dev requirements/bench.txt
	@echo "Installing what the comparisons need …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

bench: $(VENV)/bench
	@$(BIN)/python -m bench $(ARGS)

season: $(VENV)/dev
	@$(BIN)/python -m bench.season $(ARGS)

chaos: $(VENV)/dev
	@$(BIN)/python -m chaos $(ARGS)

# The pinned sets, made anew from pyproject.toml.
requirements: $(VENV)/dev
	@for set in base dev bench; do \
		$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host \
			--no-header $$( [ $$set = base ] || echo "--extra dev" ) $$( [ $$set = bench ] && echo "--extra bench" ) -o requirements/$$set.txt requirements/build.in pyproject.toml; \
	done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
