# The only door: everything that is done to the project is a target here.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
EXAMPLE ?= examples/project-build.yml
FUZZ_ITERATIONS ?= 50000
START ?= 1
SEEDS ?= 20000
CHAOS_MINUTES ?= 5
CHAOS_SEED ?=

.PHONY: help build dist profile run up test test-long lint fmt clippy buf tidy verify deny fuzz simulate chaos bench bench-quick bench-micro bench-economy bench-recovery soak bench-binaries clean check-tools

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/:.*?## /\t/' | expand -t 12

check-tools:
	@command -v $(CARGO) >/dev/null || { echo "missing: cargo; install Rust from your distribution or with rustup" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "missing: a C compiler; on Debian: apt-get install gcc libc6-dev" >&2; exit 1; }

build: check-tools ## Builds the binary `orchestrator`
	$(CARGO) build --release --package orchestrator

dist: check-tools ## Builds what is shipped, optimised as a whole and by a profile: target/dist/orchestrator
	CARGO=$(CARGO) scripts/dist.sh orchestrator

profile: check-tools ## Writes that profile anew, from the server and its agents under load
	scripts/postgres-for-tests.sh
	CARGO=$(CARGO) scripts/profile.sh

run: build ## Runs the example workflow with live progress on the embedded store
	target/release/orchestrator workflows execute $(EXAMPLE)

up: build ## Starts the control plane with all bundled agents
	target/release/orchestrator up

test: check-tools ## Runs all tests; finds or installs PostgreSQL for them
	scripts/postgres-for-tests.sh
	$(CARGO) test --workspace --all-targets
	$(CARGO) test --workspace --doc

test-long: check-tools ## The same with many more cases of the property tests
	scripts/postgres-for-tests.sh
	PROPTEST_CASES=20000 $(CARGO) test --workspace --all-targets

lint: fmt clippy buf tidy ## Format, clippy as errors, buf and the repository's rules

fmt:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- --deny warnings

buf: ## Lints the contracts, where npm is there
	scripts/buf-lint.sh

tidy: ## Checks the repository's rules and that contracts only grow
	$(CARGO) test --package contracts --test it -- tidy:: contracts::

verify: lint test ## Everything that must be clean before a landing

fuzz: check-tools ## Runs mutations of the corpus; FUZZ_ITERATIONS sets how many
	FUZZ_ITERATIONS=$(FUZZ_ITERATIONS) $(CARGO) test --package engine --test fuzz
	@echo "for fuzzing led by coverage (needs nightly Rust): cargo install cargo-fuzz, then"
	@echo "  cargo +nightly fuzz run definitions fuzz/corpus/definitions tests/corpus/definitions/valid"
	@echo "  cargo +nightly fuzz run expressions fuzz/corpus/expressions tests/corpus/expressions"
	@echo "  cargo +nightly fuzz run decide fuzz/corpus/decide tests/corpus/decide"

bench-binaries: check-tools
	scripts/postgres-for-tests.sh
	CARGO=$(CARGO) scripts/dist.sh orchestrator bench

bench: bench-binaries ## All figures with their limits, some ten minutes; writes target/bench
	target/dist/bench all

bench-quick: bench-binaries ## The same, fewer and shorter, within two minutes
	target/dist/bench all --quick

simulate: check-tools ## Lives SEEDS simulated lives from seed START on, of one replica and of several; SEEDS=1: one again
	SIMULATION_START=$(START) SIMULATION_SEEDS=$(SEEDS) \
		$(CARGO) test --release --package control-plane --test simulation -- --nocapture

chaos: check-tools ## Faults at random moments under load for CHAOS_MINUTES (5); CHAOS_SEED=n: again
	scripts/postgres-for-tests.sh
	CHAOS_MINUTES=$(CHAOS_MINUTES) CHAOS_SEED=$(CHAOS_SEED) CARGO=$(CARGO) scripts/chaos.sh

bench-micro: check-tools ## Engine and codec by themselves, with criterion
	$(CARGO) bench --package bench

bench-economy: bench-binaries ## What is used when idle, with many agents, with waiting runs, overloaded
	target/dist/bench economy

bench-recovery: check-tools ## A recovery of 50 issues and a triage of 10,000; fails when a goal is missed
	scripts/postgres-for-tests.sh
	$(CARGO) test --release --package contracts --test it -- \
		--ignored --nocapture --test-threads 1 fifty_issues ten_thousand

soak: bench-binaries ## A steady load for SOAK_MINUTES (60); fails when memory or latency grows
	target/dist/bench soak

deny: ## Checks licences and advisories of the dependencies
	$(CARGO) deny check

clean: ## Removes what was built
	$(CARGO) clean
