# The one door to everything that is done with this repository. `make` lists it.

# Where rustup puts cargo, for shells that have not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

PELTON := target/release/pelton
BENCH := target/release/pelton-bench
DATA := data/cities.jsonl.gz

.DEFAULT_GOAL := help
.PHONY: help host run test check sim clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

host:
	@.ci/host

run: host ## Build, import the real data on first start, and serve it. ARGS="--set ..." go to serve.
	cargo build --release -p pelton
	$(PELTON) import --if-empty $(DATA)
	@exec $(PELTON) serve $(ARGS)

test: ## Run all tests; installs the Debian packages they need where it may.
	@.ci/host --install
	cargo build --workspace
	cargo test --workspace

check: host ## Check format, lints and the house rules; dependencies too, where cargo-deny is installed.
	@cargo fmt --version && cargo clippy --version || \
		{ echo "Missing: rustup component add clippy rustfmt" >&2; exit 1; }
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test -p pelton-tests --test tidy
	@if cargo deny --version 2>/dev/null; then cargo deny check; \
		else echo "skipped: cargo deny check (cargo-deny is not installed)"; fi

sim: host ## Simulate: SEED= runs one seed, SEEDS= that many, TICKS= says how long.
	cargo test -p pelton-tests --test simulate -- --nocapture

clean: ## Remove what was built. The store under pelton-data stays.
	cargo clean
