# Everything a person does with this repository. Each target sets up what it needs by itself; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/millrace
UV := $(or $(shell command -v uv 2>/dev/null),$(CACHE)/uv/bin/uv)
PYTHON := .venv/bin/python

.PHONY: help setup up demo test check bench proto cluster system lock clean

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.synced ## Install uv if it is missing, and everything of pyproject.toml into .venv.

up: .venv/.synced ## Run the platform here in the foreground (MILLRACE_HOME, MILLRACE_PORT; Ctrl-C stops it).
	@exec .venv/bin/millrace up

demo: .venv/.synced ## Tell the whole story against the platform that `make up` runs: sign up, publish, push, watch.
	@exec $(PYTHON) examples/demo.py

test: .venv/.synced system ## Run everything: format, lint, types, contracts between packages, protos, all test suites.
	@exec $(PYTHON) -m pytest

check: .venv/.synced ## Run the quick part of it, before every commit: format, lint, types, contracts, fast tests.
	@exec $(PYTHON) -m pytest --quick

bench: .venv/.synced ## Measure the platform against its budgets; prints a table, writes bench/out/summary.json.
	@exec $(PYTHON) -m bench

proto: .venv/.synced ## Write the stubs of proto/ anew and lint the protos.
	@$(PYTHON) proto/generate.py
	@exec bash deploy/development/buf.sh lint

cluster: .venv/.synced system ## Run every service and the gateway as its own process, on real Kafka, Redis and PostgreSQL.
	@exec $(PYTHON) -m deploy.cluster

system: ## Install the programs that tests need (Debian and Ubuntu, as root; elsewhere name them).
	@exec bash deploy/development/system.sh

lock: | $(UV) ## Choose versions anew for what pyproject.toml asks; writes requirements.lock, every file by its hash.
	@$(UV) lock --quiet --upgrade
	@$(UV) export --quiet --format requirements-txt --no-emit-workspace --all-groups --no-header --no-annotate \
		-o requirements.lock > /dev/null

clean: ## Remove what was made here: .venv and caches. Data of installations is kept.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache bench/out/*.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.synced: pyproject.toml requirements.lock sdk/pyproject.toml .python-version | $(UV)
	@test -x $(PYTHON) || $(UV) venv --quiet .venv
	@$(UV) pip sync --quiet --require-hashes requirements.lock
	@$(UV) pip install --quiet --no-deps --editable sdk --editable .
	@touch $@

$(CACHE)/uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Millrace needs Python 3.11 or newer as python3.")'
	@echo "Installing uv into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv || { echo "python3 cannot make environments. Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(CACHE)/uv/bin/python -m pip install --quiet 'uv>=0.5'
