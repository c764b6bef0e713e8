# Everything a person does with this project starts here: `make help`.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The newest Python from 3.11 on that answers; override with `make PYTHON=/path/to/python3 …`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_ARGS ?=

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "gpuwaste needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON) …"; $(PYTHON) -m venv $(VENV); }
	@echo "installing what requirements/dev.txt lists (hashes checked) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: venv
venv: $(STAMP) ## Make the virtual environment (every other target does it by itself)

.PHONY: demo
demo: $(STAMP) ## One simulated day of a dozen GPU nodes through every stage; no cluster, no GPU
	@$(BIN)/gpuwaste demo $(DEMO_ARGS)

.PHONY: test
test: test-unit test-integration ## Unit and integration tests

.PHONY: test-unit
test-unit: $(STAMP) ## Tests without network, cluster or sleep
	$(BIN)/python -m pytest tests/unit $(TEST_ARGS)

.PHONY: test-integration
test-integration: $(STAMP) ## Tests against a real Kubernetes API server (needs Go or KUBEBUILDER_ASSETS)
	$(BIN)/python -m pytest tests/integration $(TEST_ARGS)

.PHONY: test-e2e-smoke
test-e2e-smoke: $(STAMP) ## End to end, one path a capability
	$(BIN)/python -m pytest tests/e2e -m smoke $(TEST_ARGS)

.PHONY: test-e2e
test-e2e: $(STAMP) ## End to end, all of it
	$(BIN)/python -m pytest tests/e2e $(TEST_ARGS)

.PHONY: lint
lint: $(STAMP) ## Style of Python and YAML
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict crds kind-config.yaml .pre-commit-config.yaml

.PHONY: types
types: $(STAMP) ## Types (mypy, strict)
	$(BIN)/mypy

.PHONY: imports
imports: $(STAMP) ## Import order of the layers
	$(BIN)/lint-imports

.PHONY: lock
lock: ## Resolve pyproject.toml into requirements/dev.txt (needs uv); names no index
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--all-extras --group dev pyproject.toml -o requirements/dev.txt

.PHONY: generate-proto
generate-proto: $(STAMP)
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out="$$tmp" --pyi_out="$$tmp" proto/gpuwaste/v1/usage.proto && \
	cp "$$tmp"/gpuwaste/v1/usage_pb2.py "$$tmp"/gpuwaste/v1/usage_pb2.pyi agent/gpuwaste_agent/wire/
