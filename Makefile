# make repro      set everything up and run the pipeline on the params in params.yaml
# make reproduce  run it from scratch in a clone, and compare with what is committed
# make test       pass the tests, in the same environment
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stages call plain `python`; this makes it the environment's, whatever is active in the caller's shell.
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH

# Packages in which every type must fit, and no parameter is without one.
STRICT := $(addprefix minirlhf/,settings runtime statistics text ppo)

.PHONY: setup repository repro reproduce test soak lint docs clean

# Two at once would write into one environment: the second waits, where there is flock.
setup:
	@$(if $(shell command -v flock),flock $(VENV).lock) $(MAKE) --no-print-directory $(VENV)/ready

# PyTorch first and alone: it is the one package whose build depends on the machine.
$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "MiniRLHF needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@df -Pk . | awk 'NR == 2 && $$4 < 2000000 {print "the packages take 2 GB, and " int($$4 / 1000) " MB are free here"; exit 1}'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --editable .
	touch $@

repository:
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "DVC needs a git repository, and this is none: git init, then once more"; exit 1; }

repro: repository setup
	dvc repro

reproduce: setup
	minirlhf reproduce

# A process a core, each with whole files, whose fixtures are shared.
test: setup lint
	python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

soak: setup
	MINIRLHF_SOAK=1 python -m pytest

lint: setup
	ruff check .
	ruff format --check .
	pyrefly check
	pyrefly check --preset default --error implicit-any-parameter $(STRICT)

docs: setup
	python docs/build.py

clean:
	rm -rf site dvc_plots .pytest_cache .ruff_cache build dist *.egg-info
