# The one door to everything that is done with this repository. `make` lists it.

# Where rustup puts cargo, for shells that have not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

PELTON := target/release/pelton
BENCH := target/release/pelton-bench
DATA := data/cities.jsonl.gz

# What `make bench-floor` compares, and how.
FLOOR = $(BENCH) floor --listen 127.0.0.1:{port} --reply-size 127
CANDIDATE = $(PELTON) serve --set server.listen=127.0.0.1:{port} --set admin.listen=off
RATE = 60000
PIPELINE = 1
PAIRS = 15

.DEFAULT_GOAL := help
.PHONY: help host run test check sim bench-floor instructions clean

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

# Replies of the floor server have the mean size of those of the real data.
bench-floor: host ## Measure CPU a request above the fixed-reply server. RATE= PIPELINE= PAIRS=
	cargo build --release -p pelton -p pelton-bench
	$(PELTON) import --if-empty $(DATA)
	$(BENCH) compare --baseline '$(FLOOR)' --candidate '$(CANDIDATE)' --margin-us 0.7 \
		--keys $(DATA) --verify --rate $(RATE) --pipeline $(PIPELINE) --pairs $(PAIRS)

# The difference of two runs: what they have in common, the start above all, cancels out.
instructions: host ## Count the server's own instructions a hit; needs Debian's valgrind.
	@command -v valgrind >/dev/null || { echo "Missing: apt-get install valgrind" >&2; exit 1; }
	cargo build --release -p pelton-bench
	@for requests in 200000 700000; do \
		valgrind --tool=callgrind --callgrind-out-file=/dev/null $(BENCH) replay --keys $(DATA) \
			--requests $$requests 2>&1 | awk '/Collected/ { print $$4 }'; \
	done | awk 'NR == 1 { few = $$1 } NR == 2 { printf "%.0f instructions a hit\n", ($$1 - few) / 500000 }'

clean: ## Remove what was built. The store under pelton-data stays.
	cargo clean
