# Two commands matter: `make book` builds the site, `make test` checks everything.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup book test unit ledger serve clean

# A machine without a home directory still gets one for caches and settings.
ifeq ($(strip $(HOME)),)
export HOME := $(CURDIR)/build/home
endif
# One thread a process: tests and chapters run two at a time, and results do not depend on cores.
export OMP_NUM_THREADS := 1
export PYTHONUTF8 := 1

PY := .venv/bin/python
SITE := build/site
PORT ?= 8000
JOBS ?= 2
# The environment is as good as its sources: the stamp names them and the folder they stand in.
STAMP := .venv/stamp-$(shell (pwd; cat requirements.txt pyproject.toml) | cksum | cut -d' ' -f1)
PYTEST := $(PY) -m pytest -n $(JOBS) --dist=worksteal
NOTEBOOKS := $(wildcard book/*.ipynb)
APART := site colab benchmarks

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1  # /p' Makefile

setup: $(STAMP)  ## create .venv with the pinned requirements (once)
	@:

$(STAMP):
	@bash .ci/setup
	@rm -f .venv/stamp-*
	@touch $@

book: setup  ## run every chapter once and build the site into build/site
	$(PY) .ci/build_book.py --jobs $(JOBS) --site $(SITE)

unit: setup  ## the quick tests, under a minute
	$(PYTEST) -m "not slow" $(APART:%=--ignore=tests/%)

test: setup  ## everything: lint, types, tests, chapters, site in a browser, a fresh environment
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(if $(NOTEBOOKS),$(PY) -m nbstripout --keep-id --verify $(NOTEBOOKS))
	$(PY) tests/browsing.py --install
	$(PYTEST) $(APART:%=--ignore=tests/%)
	$(PY) .ci/build_book.py --jobs $(JOBS) --site $(SITE)
	SPD_SITE=$(SITE) $(PYTEST) tests/colab tests/site

ledger: setup  ## run every experiment over its seeds: book/ledger.json and appendix A (hours)
	$(PY) tests/benchmarks/ledger.py --jobs $(JOBS)

serve: setup  ## show the built site on this machine
	@test -f $(SITE)/index.html || { echo "nothing to serve yet: run make book" >&2; exit 1; }
	@echo "http://localhost:$(PORT)/"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

clean:  ## remove everything that was built, .venv too
	rm -rf .venv build _build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
