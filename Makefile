# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# Everything is installed into .venv; a stamp file per level makes a second run cost seconds.
SHELL  := /bin/bash
PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip
DEMO   := runs/live/demo-world

# --no-deps: a lock is complete. --no-build-isolation: FFCV, a source, is built with what the lock has already put there.
PINNED := $(PIP) install --quiet --no-deps --no-build-isolation --require-hashes

# an environment whose Python was changed, moved or half made has no pip that runs: it is made anew
$(shell [ ! -e .venv ] || $(BIN)/python -m pip --version >/dev/null 2>&1 || rm -f .venv/*.stamp)

# a locked set-up is made even where an unlocked one is
KIND   := $(if $(LOCKED),-locked)

export OMP_NUM_THREADS ?= $(shell nproc)

.PHONY: help lock setup demo test test-slow test-real lint bench clean

help:
	@echo "make demo       set up what the main job needs, then run it on the small world (no GPU, no data)"
	@echo "make test       set up everything, then the fast tests"
	@echo "make test-slow  set up everything, then the slow tests"
	@echo "make test-real  set up everything, then the tests on the real data: TINY_IMAGENET=DIR|ZIP IMAGENET_WEIGHTS=DIR"
	@echo "                (LOCKED=1 before any of these: the exact versions of the lock, checked by their hashes)"
	@echo "make lint       ruff: rules and format"
	@echo "make bench      speed of views and steps here, ours beside its peers (about 5 minutes; leave the machine idle)"
	@echo "make lock       pin what .venv holds now: requirements.lock and requirements-all.lock (needs the network)"
	@echo "make clean      remove what these commands made, .venv included; your own runs stay"

demo: .venv/base$(KIND).stamp
	$(BIN)/python preprocess/pack.py --small-world --out $(DEMO)
	$(BIN)/python -m fastres.train --schedule demo --data $(DEMO)

setup: .venv/all$(KIND).stamp

# each file's tests in one process, as many at once as there are cores: each of them uses one
test: setup
	$(BIN)/python -m pytest -m "not slow and not real" --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not real" --numprocesses auto --dist loadfile --no-loadscope-reorder --timeout 900

test-real: setup
	$(BIN)/python -m pytest -m real tests/real

lint: .venv/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(PIP) install --quiet kornia timm lightning
	$(BIN)/python -m fastres.bench views
	$(BIN)/python -m fastres.bench steps

LOCK = $(BIN)/uv pip compile setup.py --quiet --generate-hashes --no-annotate --no-emit-index-url --constraint .venv/frozen.txt \
  --python $(BIN)/python --no-build-isolation-package ffcv --custom-compile-command 'make lock'

lock: setup
	$(PIP) install --quiet uv
	$(PIP) freeze --exclude-editable > .venv/frozen.txt
	$(LOCK) --output-file requirements.lock
	$(LOCK) --output-file requirements-all.lock $(addprefix --extra ,ffcv dali search dashboard timm onnx dev)

clean:
	rm -rf .venv $(DEMO) runs/live/demo-s0 build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is no Python 3.11 or newer: install one, then make PYTHON=python3.11 ..."; exit 4; }
	$(PYTHON) -m venv --clear .venv || \
	  { echo "error: $(PYTHON) makes no environments: on Debian and Ubuntu apt install python3-venv, then again"; exit 4; }
	$(if $(LOCKED),,$(PIP) install --quiet --upgrade pip setuptools wheel)
	@touch $@

.venv/lint.stamp: | .venv/made.stamp
	$(PIP) install --quiet 'ruff>=0.17,<0.18'
	@touch $@

# A torch that lies on the machine without a torchvision to match is not what we want: ask for both by name, first.
# LOCKED=1: exactly the versions and files of the lock instead, each checked by its sha256, by the pip that Python brings.
.venv/base$(KIND).stamp: setup.py $(if $(LOCKED),requirements.lock) | .venv/made.stamp
ifdef LOCKED
	$(PINNED) -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
else
	$(PIP) install --quiet torch torchvision
	$(PIP) install --quiet --editable .
endif
	@touch $@

.venv/all$(KIND).stamp: setup.py .ci/system-libraries $(if $(LOCKED),requirements-all.lock) | .venv/base$(KIND).stamp
	bash .ci/system-libraries
ifdef LOCKED
	$(PINNED) -r requirements-all.lock
else
	$(PIP) install --quiet --no-build-isolation 'ffcv>=1.0.2'
	$(PIP) install --quiet --editable '.[ffcv,dali,search,dashboard,timm,onnx,dev]'
endif
	@touch $@
