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
DEMO_ARGS ?=
RELEASE_ARGS ?=

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

# --- tests

.PHONY: test
test: test-unit test-integration ## Unit and integration tests

.PHONY: test-unit
test-unit: $(STAMP) ## Tests without network, cluster or sleep
	$(BIN)/python -m pytest tests/unit $(TEST_ARGS)

.PHONY: test-integration
test-integration: $(STAMP) ## Tests against a real Kubernetes API server (needs Go or KUBEBUILDER_ASSETS)
	$(BIN)/python -m pytest tests/integration $(TEST_ARGS)

.PHONY: test-e2e-smoke
test-e2e-smoke: $(STAMP) ## End to end, one path a capability (real nodes need root on Linux)
	$(BIN)/python -m pytest tests/e2e -m smoke $(TEST_ARGS)

.PHONY: test-e2e
test-e2e: $(STAMP) ## End to end, all of it
	$(BIN)/python -m pytest tests/e2e $(TEST_ARGS)

.PHONY: test-full
test-full: $(STAMP) ## Every test there is, file by file; goes on where an ended run was (docs/evidence)
	@$(BIN)/python -m tests.full tests $(TEST_ARGS)

.PHONY: deps
deps: ## Install the Debian packages that tests with real nodes need (root), else print the line
	@packages=$$(sed 's/#.*//' tests/apt.txt | tr -s ' \n' ' '); \
	missing=$$(for p in $$packages; do dpkg -s "$$p" >/dev/null 2>&1 || printf '%s ' "$$p"; done); \
	if [ -z "$$missing" ]; then echo "deps: nothing missing"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else echo "deps: as root, run: apt-get install $$missing"; fi

.PHONY: tools
tools: $(STAMP) ## Build once into your cache what tests start: Kubernetes, containerd, images, kwok (ten minutes)
	@$(BIN)/python -m tests.cluster prepare

# --- checks

.PHONY: verify
verify: ## Generated files, clean tree, style, types, imports, links
	@before=$$(git status --porcelain); $(MAKE) generate; after=$$(git status --porcelain); \
	if [ "$$before" != "$$after" ]; then \
	  echo "verify: generated files are not what their generators write; commit these changes:" >&2; \
	  git --no-pager diff --stat >&2; exit 1; fi
	@$(MAKE) lint types imports
	@$(BIN)/python docs/check_links.py

.PHONY: generate
generate: $(STAMP) ## Write everything that follows from other files: messages, products, CRDs, docs
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out="$$tmp" --pyi_out="$$tmp" proto/gpuwaste/v1/usage.proto && \
	cp "$$tmp"/gpuwaste/v1/usage_pb2.py "$$tmp"/gpuwaste/v1/usage_pb2.pyi agent/gpuwaste_agent/wire/ && \
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out="$$tmp" --pyi_out="$$tmp" proto/kubelet/podresources.proto && \
	cp "$$tmp"/kubelet/podresources_pb2.py "$$tmp"/kubelet/podresources_pb2.pyi agent/gpuwaste_agent/kubelet/
	@sh tests/sim/kubelet_api/generate.sh
	@$(BIN)/python proto/generate_products.py
	@$(BIN)/python -m gpuwaste.api.generate
	@$(BIN)/python docs/generate.py

.PHONY: lint
lint: $(STAMP) ## Style of Python and YAML
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict $$(git ls-files '*.yaml' '*.yml')

.PHONY: types
types: $(STAMP) ## Types (mypy, strict)
	$(BIN)/mypy

.PHONY: imports
imports: $(STAMP) ## Import order of the layers
	$(BIN)/lint-imports

.PHONY: docs
docs: $(STAMP) ## Write the generated pages and check all links
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/check_links.py

.PHONY: lock
lock: ## Resolve pyproject.toml into requirements/dev.txt (needs uv); names no index
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--all-extras --group dev pyproject.toml -o requirements/dev.txt
	for part in agent operator; do uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --extra $$part -c requirements/dev.txt pyproject.toml \
		-o images/$$part/requirements.txt; done
	echo 'hatchling>=1.27' | uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -c requirements/dev.txt - -o images/build-requirements.txt

# --- a cluster for a person

.PHONY: cluster
cluster: $(STAMP) ## A real control plane on loopback, until Ctrl-C (needs Go or KUBEBUILDER_ASSETS)
	@$(BIN)/python -m tests.cluster up

.PHONY: node-cluster
node-cluster: $(STAMP) ## The same with two nodes with simulated GPUs (needs root on Linux)
	@$(BIN)/python -m tests.cluster up --nodes

.PHONY: clean-cluster
clean-cluster: $(STAMP) ## End it, and remove what a killed one left behind
	@$(BIN)/python -m tests.cluster down

.PHONY: images
images: $(STAMP) ## Build the images of agent and operator here (root on Linux)
	@$(BIN)/python -c 'import os; from tests.cluster.images.build import product_images; print(product_images(environment=os.environ, report=print))'

# --- benchmarks: `name value unit target ok|missed`, exit 1 when an accepted range is missed

.PHONY: bench-packing
bench-packing: $(STAMP) ## Packing against its own bound and the usual heuristics
	$(BIN)/python -m tests.perf.packing.bench

.PHONY: bench-agent
bench-agent: $(STAMP) ## What the agent costs on a node of 56 MIG instances (ten minutes)
	$(BIN)/python -m tests.perf.agent.bench

.PHONY: bench-ledger
bench-ledger: $(STAMP) ## An hour of a million slice-minutes, and a month by team
	$(BIN)/python -m tests.perf.ledger.bench

.PHONY: bench-focus
bench-focus: $(STAMP) ## A million FOCUS rows written and verified
	$(BIN)/python -m tests.perf.focus.bench

.PHONY: bench-scan
bench-scan: $(STAMP) ## A scan of 1,000 nodes and 10,000 pods on a real API server and a real Prometheus (minutes)
	$(BIN)/python -m tests.perf.scan.bench

.PHONY: bench-quick
bench-quick: $(STAMP) ## Every benchmark in its short form
	$(BIN)/python -m tests.perf.packing.bench --quick
	$(BIN)/python -m tests.perf.ledger.bench --quick
	$(BIN)/python -m tests.perf.scan.bench --quick
	$(BIN)/python -m tests.perf.focus.bench --quick
	$(BIN)/python -m tests.perf.agent.bench --quick

.PHONY: bench-full
bench-full: $(STAMP) ## Every benchmark in its long form; goes on where an ended run was (docs/evidence)
	@$(BIN)/python -m tests.full benches

# --- a release

.PHONY: release-dry-run
release-dry-run: $(STAMP) ## Make all that a release holds, check it, and publish nothing
	@$(BIN)/python -m tests.release $(RELEASE_ARGS)
