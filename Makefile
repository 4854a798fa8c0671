# Everything runs in .venv, which the first target that needs it builds. `make help` lists the targets.

PYTHON ?= python3
RUN := .venv/bin/python
HELM := .venv/bin/helm-scale
READY := .venv/.ready
QUICKSTART := runs/quickstart
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2

.DEFAULT_GOAL := help
.PHONY: help setup docs quickstart test test-quick test-adapters install-plain install-fairchem install-metatomic lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

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

quickstart: setup ## learn 58 elements, then three molecules; evaluate, export, finetune, in minutes
	.venv/bin/torchrun --nproc-per-node 2 launch/pretrain.py --config quickstart --out $(QUICKSTART)/pretrain
	.venv/bin/torchrun --nproc-per-node 2 launch/pretrain.py --config quickstart --data.path data_shards/conformers \
	  --init_from $(QUICKSTART)/pretrain --training.steps 500 --out $(QUICKSTART)/continued
	$(HELM) evaluate --source $(QUICKSTART)/pretrain --out $(QUICKSTART)/new_molecules \
	  --extras '[embedding]' --force_molecules 4
	$(HELM) evaluate --source $(QUICKSTART)/continued --data data_shards/conformers --out $(QUICKSTART)/new_conformers \
	  --extras '[orbitals]' --force_molecules 6 --scf_molecules 6
	$(HELM) export --source $(QUICKSTART)/continued --out $(QUICKSTART)/bundle
	$(HELM) export --out $(QUICKSTART)/bundle --verify
	$(HELM) finetune --source $(QUICKSTART)/bundle --data data_shards/conformers --out $(QUICKSTART)/finetune --threads 1
	@$(HELM) summary $(QUICKSTART)

test: lint ## lint, then the whole suite
	$(PYTEST)

test-quick: setup ## the suite without its slow tests
	$(PYTEST) -m 'not slow'

# Packages for atomistic machine learning do not share an environment; each adapter is tested in one of its own. fairchem-core goes
# in without what only its GPU kernels need (cuda-python, nvidia-cutlass-dsl), so its requirements are listed here.
OURS := ase==3.29.0 e3nn==0.6.0 numpy==2.4.6 pydantic==2.14.3 PyYAML==6.0.3 safetensors==0.8.0 scipy==1.17.1 pytest==9.2.0 \
  isal==1.9.1 tensorboard==2.21.0 tqdm==4.70.1 webdataset==1.0.2
FAIRCHEM := fairchem-core==2.24.0 torchtnt==0.2.4 nvalchemi-toolkit-ops clusterscope==0.0.18
FAIRCHEM_NEEDS := ase-db-backends backoff click huggingface-hub hydra-core 'lmdb<=1.7.3' monty numba orjson psutil pyre-extensions \
  requests 'setuptools<81' submitit tabulate tensorboard tqdm wandb websockets
METATOMIC := metatomic-torch==0.1.19

test-adapters: setup ## the loader, fairchem and metatomic, each in an environment of its own (about 4 GB)
	@for name in plain fairchem metatomic; do $(MAKE) --no-print-directory .venv-$$name/.ready || \
	  echo "test-adapters: $$name cannot be installed here; its tests are skipped" >&2; done
	@test ! -e .venv-plain/.ready || HELM_PLAIN_PYTHON=$(CURDIR)/.venv-plain/bin/python $(RUN) -m pytest -q -k nothing_but_torch tests/export/test_bundle.py
	@for name in fairchem metatomic; do test ! -e .venv-$$name/.ready || \
	  .venv-$$name/bin/python -m pytest -q -s -rs tests/export/test_$$name.py || exit 1; done

.venv-plain/.ready .venv-fairchem/.ready .venv-metatomic/.ready: .venv-%/.ready: Makefile
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --quiet torch==2.13.0
	$(MAKE) --no-print-directory install-$*
	@touch $@

install-plain:
	.venv-plain/bin/pip install --quiet safetensors==0.8.0

install-fairchem:
	.venv-fairchem/bin/pip install --quiet torch==2.13.0 $(OURS) $(FAIRCHEM_NEEDS)
	.venv-fairchem/bin/pip install --quiet --no-deps $(FAIRCHEM) --editable .

install-metatomic:
	.venv-metatomic/bin/pip install --quiet torch==2.13.0 $(OURS) $(METATOMIC)
	.venv-metatomic/bin/pip install --quiet --no-deps --editable .

docs: setup ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "docs: open site/index.html"

lint: setup ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean: ## remove caches and the quickstart's runs; .venv stays
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist $(QUICKSTART)
