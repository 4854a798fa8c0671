# Everything runs in .venv, which the first target that needs it builds. `make help` lists the targets.

PYTHON ?= python3
RUN := .venv/bin/python
READY := .venv/.ready
QUICKSTART := runs/quickstart
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-quick lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## build .venv and install the project into it

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: wanted Python 3.11 or newer, got: $$($(PYTHON) --version 2>&1)." \
	       "Install it, or name it: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "setup: wanted Python's venv module (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@echo "setup: installing into .venv; this takes some minutes"
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: setup ## train, evaluate, export and finetune on the committed molecules, in minutes
	$(RUN) launch/pretrain.py --config configs/quickstart.yaml --out $(QUICKSTART)/pretrain
	$(RUN) launch/evaluate.py --source $(QUICKSTART)/pretrain --out $(QUICKSTART)/evaluation --extras '[orbitals, embedding]'
	$(RUN) launch/export.py --source $(QUICKSTART)/pretrain --out $(QUICKSTART)/bundle
	$(RUN) launch/export.py --out $(QUICKSTART)/bundle --verify
	$(RUN) launch/finetune.py --source $(QUICKSTART)/bundle --out $(QUICKSTART)/finetune --threads 1
	@echo "quickstart: done. Tables and pictures:"
	@find $(QUICKSTART)/evaluation $(QUICKSTART)/finetune -name '*.png' -o -name '*.md' -o -name '*.json' | sort | sed 's/^/  /'

test: lint ## lint, then the whole suite
	$(PYTEST)

test-quick: setup ## the suite without its slow tests
	$(PYTEST) -m 'not slow'

lint: setup ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean: ## remove caches and the quickstart's runs; .venv stays
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist $(QUICKSTART)
