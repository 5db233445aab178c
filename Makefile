# `make quickstart` and `make test` are each enough by themselves on a machine with Python 3.11, 3.12 or 3.13.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast lint bench clean

VENV := .venv
STAMP := $(VENV)/.installed
OUT ?= runs/quickstart
SEED ?= 0
# Gigabytes: torch brings large libraries, and pip keeps what it unpacks beside them for a while.
ROOM := 8

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with the tested versions

# A name on the path need not run (version managers leave stubs behind), so each candidate is tried.
$(STAMP): pyproject.toml constraints.txt
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; assert (3, 11) <= sys.version_info[:2] < (3, 14)' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "got no Python 3.11 to 3.13 with venv, wanted one (Debian: python3-venv), or PYTHON=/path/to/python" >&2; exit 2; fi; \
	if [ ! -x $(VENV)/bin/python ]; then \
	  free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}'); \
	  if [ "$$free" -lt $(ROOM) ]; then \
	    echo "install: got $$free GB of free disk here, wanted $(ROOM) for $(VENV): free some, or make ROOM=0 to try anyway" >&2; exit 2; fi; \
	  "$$found" -m venv $(VENV); fi
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,joblib,hardware,vla]'
	@touch $(STAMP)

quickstart: $(STAMP) ## the whole story in minutes; ends with OUT/report.html
	$(VENV)/bin/robopref quickstart out=$(OUT) seed=$(SEED)

lint: $(STAMP) ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint ## style, types and every test
	$(VENV)/bin/python -m pytest

test-fast: $(STAMP) ## the tests of a few minutes
	$(VENV)/bin/python -m pytest -m "not slow and not separate" -n logical --dist loadfile

bench: $(STAMP) ## every benchmark, quickly
	@for name in $$($(VENV)/bin/robopref bench); do $(VENV)/bin/robopref bench "$$name" quick=true out="runs/bench/$$name"; done

clean: ## what make and the tools left behind; runs/ stays
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache
