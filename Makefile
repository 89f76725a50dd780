# Everything a reader needs; each target sets up what it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

.PHONY: help setup book open pdf zip test quick study bench lowest gpu clean
help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

# $(1): folder of the environment, $(2): what is installed of this package beyond the lock file
define environment
	@echo "setting up $(1) from requirements.lock (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { echo "Python 3.11.5 or newer is needed; set PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv $(1) || { echo "python3-venv is needed: apt-get install python3-venv"; exit 2; }
	@$(1)/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.lock | sed -n -E 's/^(Collecting|Downloading) ([^ ]+).*/\1 \2/p; /^(Installing|Successfully)/p'
	@$(1)/bin/python -m pip install --disable-pip-version-check -q $(2)
	@$(1)/bin/python -m pip check
	@touch $(1)/.installed
endef

$(VENV)/.installed: requirements.lock pyproject.toml
	$(call environment,$(VENV),--no-deps -e .)

.venv-bench/.installed: requirements.lock pyproject.toml
	$(call environment,.venv-bench,-e '.[bench]')

setup: $(VENV)/.installed  ## the environment only

book: $(VENV)/.installed  ## execute every chapter and render the paper
	@$(BIN)/vicarious book

open:  ## open the rendered paper in a browser
	@test -f _build/paper/html/index.html || { echo "there is no paper yet: make book"; exit 2; }
	@$(PYTHON) -m webbrowser -t "file://$(CURDIR)/_build/paper/html/index.html"

pdf: $(VENV)/.installed  ## the same, and the whole paper as one PDF (needs Chromium)
	@$(BIN)/vicarious book --pdf

zip: $(VENV)/.installed  ## the same, and site, notebooks and data in one file
	@$(BIN)/vicarious book --zip

test: $(VENV)/.installed  ## all tests, the notebooks re-executed among them
	@$(BIN)/python -m pytest -n 3 --dist loadscope tests
	@$(BIN)/python tests/notebooks.py

quick: $(VENV)/.installed  ## train everything small from nothing and render it (minutes)
	@rm -rf _build/quick _build/quick-runs
	@VICARIOUS_RUNS=_build/quick-runs $(BIN)/vicarious study --profile quick
	@VICARIOUS_RUNS=_build/quick-runs $(BIN)/vicarious book -p profile quick --out _build/quick

study: $(VENV)/.installed  ## train what is missing of the published study
	@$(BIN)/vicarious study

bench: .venv-bench/.installed  ## measure speed beside other libraries, installed into an environment of their own (about 12 minutes)
	@.venv-bench/bin/python tests/bench.py

lowest: $(VENV)/.installed  ## the tests with the oldest packages allowed, in an environment of their own
	@$(BIN)/python tests/lowest.py

gpu: $(VENV)/.installed  ## what CUDA does otherwise, on one device (minutes)
	@$(BIN)/python tests/gpu.py

clean:  ## remove what was built (the environment and trained results stay)
	@rm -rf _build
