# Every command of the README and of CI. Recipes stay short: what takes thought lives in the programs.
# One profile (release) builds everything, so that demo, tests and benches share one set of artefacts.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO := cargo
BUILD := $(CARGO) build --release --locked --workspace --bins
BIN := target/release
TEST_STACK := $(CURDIR)/target/test-stack

.PHONY: help setup build demo up down check fmt lint doc deny rules test bench load faults alerts boards boards-check dashboards clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Install what the build needs (Debian; asks for nothing else)
	@bash scripts/setup

build: setup ## Build every program
	$(BUILD)

demo: build ## Bring everything up, send 1,000 orders, audit them; stays up until Ctrl-C (ONCE=1: stops, exit 0 only if all is well)
	$(BIN)/order-load demo $(if $(ONCE),--once) $(DEMO_ARGS)

up: build ## Start Kafka, Postgres and Temporal on their default ports
	$(BIN)/order-stack up

down: ## Stop what `make up` started and remove its data
	$(BIN)/order-stack down

check: setup fmt lint doc deny rules ## Format, lints, docs, dependency policy, rules and alerts with their unit tests

fmt:
	$(CARGO) fmt --all -- --check

lint:
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items

deny:
	@bash scripts/deny

rules: setup ## Prometheus' own checks and unit tests over prometheus/
	@bash scripts/rules

# Programs and tests in one go: with the features of what only tests need, programs alone would be built a second time.
test: setup ## Everything that guards main, on real servers of its own
	$(CARGO) build --release --locked --workspace --all-targets
	@bash scripts/test $(TEST_STACK)

faults: setup ## The long suite: zombies, lost brokers, lost databases, a random nemesis
	$(CARGO) build --release --locked --workspace --all-targets
	$(CARGO) test --release --locked --workspace --test faults -- --test-threads=1 --nocapture

alerts: build ## Every alert by a real fault, in faster time, on servers of its own (ALERTS=DeadLetters,JobGone for some)
	$(BIN)/order-load alerts $(if $(ALERTS),--only $(ALERTS)) $(ALERTS_ARGS)

boards: build ## Grafana's boards on a real run with faults: every query answers, and what they show is what happened
	$(BIN)/order-load boards $(BOARDS_ARGS)

dashboards: setup ## A board in the terminal, without Grafana (BOARD=pipeline, or all; PROMETHEUS_URL, else that of make demo)
	@bash scripts/dashboards show $(or $(BOARD),pipeline)

boards-check: setup ## Whether the viewer of make dashboards takes every board
	@bash scripts/dashboards check

bench: build ## How fast, next to how fast it could be
	$(BIN)/order-load bench $(BENCH_ARGS)

load: build ## vegeta on servers of its own, judged on what arrives (PROFILE=smoke; load/README.md has the others)
	$(BIN)/order-load run --profile $(or $(PROFILE),smoke) $(LOAD_ARGS)

clean: down ## Remove what was built
	$(CARGO) clean
