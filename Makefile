# Two commands are all the set-up a fresh machine needs: `make sweep` and `make test`.
# Both make .venv if it is missing and install into it; neither touches anything else.

.PHONY: sweep test test-all lint install clean

# every path is relative, so a folder with spaces in its name works
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RAYMAE := .venv/bin/python -m raymae.cli
SWEEP ?= sweeps/timeseries_mask.yaml

sweep: install
	$(RAYMAE) sweep $(SWEEP)

test: install lint
	.venv/bin/python -m pytest

test-all: install lint
	.venv/bin/python -m pytest -m ''

lint: install
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy

install: .venv/.installed

.venv/.installed: pyproject.toml
	@test -x .venv/bin/python || { test -n "$(PYTHON)" || { \
		echo "RayMAE needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv); none was found" >&2; \
		exit 1; }; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --editable ".[dev]"
	touch .venv/.installed

clean:
	rm -rf .venv build raymae.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
