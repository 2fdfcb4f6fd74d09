# Edgewise. `make help` lists what there is. Everything lives in .venv; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test clients lint bench bench-peers soak true-twin clean lock
.DELETE_ON_ERROR:

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Edgewise needs Python 3.11 or newer; set PYTHON=/path/to/it")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.ready ## set up, then show the whole loop with real processes (ARGS="--json report.json", ARGS=--keep)
	@$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.ready ## set up, then run the tests (ARGS passes options to pytest)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

clients: $(VENV)/.ready ## set up the public clients that the tests talk to the model server with, in environments of their own
	@$(BIN)/python tests/clients/install.py $(VENV)/clients

true-twin: $(VENV)/.ready ## one story for real and in the twin: here, and as root over slow links between network namespaces
	@EDGEWISE_NAMESPACES=1 $(BIN)/python -m pytest tests/integration/system/test_twin_is_true.py $(ARGS)

lint: $(VENV)/.ready ## style, types, layering, the documentation that is made from the code
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/.ready ## measure everything against its baseline (ARGS="--json bench.json")
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.ready ## measure the model server beside MLServer and BentoML, in environments of their own
	@$(BIN)/python -m benchmarks.peers $(ARGS)

soak: $(VENV)/.ready ## hunt for bugs with fresh seeds of the digital twin until Ctrl-C (ARGS=power-cuts: cut the power everywhere)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

clean: ## remove the environment and all caches
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: ## resolve the dependencies anew (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --group dev --all-extras pyproject.toml --output-file requirements.lock
