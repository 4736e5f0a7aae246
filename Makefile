# Two commands are all the set-up a fresh machine needs: `make sweep` and `make test`.
# Both make .venv if it is missing and install into it; neither touches anything else. `make help` lists all of them.

.PHONY: help sweep test test-slow test-all lint install hooks clean

# every path is relative, so a folder with spaces in its name works
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RAYMAE := .venv/bin/python -m raymae.cli
SWEEP ?= sweeps/timeseries_mask.yaml

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

sweep: install  ## install, then run the main sweep, or another: make sweep SWEEP=sweeps/debug.yaml
	$(RAYMAE) sweep $(SWEEP)

test: install lint  ## install, lint, then the default tests: what CI runs
	.venv/bin/python -m pytest

test-slow: install  ## the tests that `make test` leaves out: whole sweeps, real data; hours
	.venv/bin/python -m pytest -m slow

test-all: install lint  ## the same with the slow tests, which take hours
	.venv/bin/python -m pytest -m ''

lint: install  ## ruff and mypy
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy

install: .venv/.installed  ## make .venv and install into it

.venv/.installed: pyproject.toml
	@test -x .venv/bin/python || { test -n "$(PYTHON)" || { \
		echo "RayMAE needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv); none was found" >&2; \
		exit 1; }; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --editable ".[dev]"
	touch .venv/.installed

hooks: install  ## let git run CI's lint before each commit (pre-commit)
	.venv/bin/python -m pip install --quiet pre-commit
	.venv/bin/python -m pre_commit install

clean:  ## remove .venv and all caches
	rm -rf .venv build raymae.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
