# The one door to everything that is done with this repository. `make` lists it.

# Where rustup puts cargo, for shells that have not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

PELTON := target/release/pelton
BENCH := target/release/pelton-bench
DATA := data/cities.jsonl.gz

# What `make bench-floor` and `make bench-quick` compare, and how.
FLOOR = $(BENCH) floor --listen 127.0.0.1:{port} --reply-size
CANDIDATE = $(PELTON) serve --set server.listen=127.0.0.1:{port} --set admin.listen=off \
	--set cache.memory=1GiB
RATE = 60000
PIPELINE = 1
PAIRS = 15

.DEFAULT_GOAL := help
.PHONY: help host run test test-peers check sim history wire fuzz mutants bench-floor bench-quick bench-snapshot
.PHONY: bench-origins bench-overload second-opinion instructions hitratio speed speed-instructions mesh copies clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

host:
	@.ci/host

run: host ## Build, import the real data on first start, and serve it. ARGS="--set ..." go to serve.
	cargo build --release -p pelton
	$(PELTON) import --if-empty $(DATA)
	@exec $(PELTON) serve $(ARGS)

test: ## Run all tests; installs the Debian packages they need where it may.
	@.ci/host --install
	cargo build --workspace --exclude pelton-models
	cargo test --workspace --exclude pelton-models
	cargo test -p pelton-models

# Without the variable, some seconds; each further interruption takes four times as long.
loom: host ## Try every order in which threads can meet at their queues. PREEMPTIONS= tries more.
	@$(if $(PREEMPTIONS),LOOM_MAX_PREEMPTIONS=$(PREEMPTIONS)) cargo test -p pelton-models

# Programs that others wrote, before the server, behind it and at it.
test-peers: ## Test with real proxies, clients and databases, and install them: NGINX, HAProxy, curl, ...
	@.ci/host --install nginx=nginx-light haproxy curl wrk h2load=nghttp2-client node=nodejs npm python3 \
		openssl redis-server pg_ctlcluster=postgresql slowhttptest
	cargo build --workspace
	cargo test -p pelton-tests --test peers -- --ignored --test-threads 2

check: host ## Check format, lints and the house rules; dependencies too, where cargo-deny is installed.
	@cargo fmt --version && cargo clippy --version || \
		{ echo "Missing: rustup component add clippy rustfmt" >&2; exit 1; }
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p pelton --features busy-cost -- -D warnings
	cargo test -p pelton-tests --test tidy
	@if cargo deny --version 2>/dev/null; then cargo deny check; \
		else echo "skipped: cargo deny check (cargo-deny is not installed)"; fi

sim: host ## Simulate: SEED= runs one seed, SEEDS= that many, TIME= as many as fit; TICKS= each.
	@cargo build --profile sim -p pelton-tests --bin simulate
	@SEED=$(SEED) SEEDS=$(SEEDS) TIME=$(TIME) TICKS=$(TICKS) target/sim/simulate

history: host ## Let many clients write, read and purge, and judge what they see. TIME= seconds, SEED=
	cargo build -p pelton
	@HISTORY=$(TIME) SEED=$(SEED) \
		cargo test -p pelton-tests --test process_history -- --nocapture --test-threads 1

fuzz: host ## Fuzz parsers and machines with AddressSanitizer: TIME= seconds each, TARGET= one.
	@TIME=$(TIME) TARGET=$(TARGET) tests/fuzz/run

wire: host ## Play the wire scripts; SCRIPT= plays those whose names begin so.
	cargo build -p pelton
	WIRE=$(SCRIPT) cargo test -p pelton-tests --test wire

mutants: host ## Plant faults one at a time in a copy; say which tests find each. ONE=name ALL=1
	cargo build -p pelton-tests --bin mutants
	@ONE="$(ONE)" ALL=$(ALL) target/debug/mutants

# Replies of the floor server have the mean size of those of the real data.
bench-floor: host ## Measure CPU a request above the fixed-reply server. RATE= PIPELINE= PAIRS=
	cargo build --release -p pelton -p pelton-bench
	$(PELTON) import --if-empty $(DATA)
	$(BENCH) compare --baseline '$(FLOOR) 127' --candidate '$(CANDIDATE)' --margin-us 0.7 \
		--keys $(DATA) --verify --rate $(RATE) --pipeline $(PIPELINE) --pairs $(PAIRS)

# Four scenarios of 15 short rounds each, in a minute and a half; bench-floor takes its time.
# A difference that is not resolved, or over the margin, is shown and no failure.
SHOWN = || { status=$$?; test $$status = 3 -o $$status = 7; }
QUICK = $(BENCH) compare --margin-us 0.7 --window 0.35 --candidate
LARGE = target/bench-16k
bench-quick: host ## Compare with the floor, quickly: Zipf, 16 a batch, churn, values of 16 KiB.
	cargo build --release -p pelton -p pelton-bench
	@$(PELTON) import --if-empty $(DATA)
	@mkdir -p $(LARGE)
	@test -s $(LARGE)/data.jsonl || $(BENCH) data --count 2000 --value-size 16384 > $(LARGE)/data.jsonl
	@$(PELTON) import --if-empty $(LARGE)/data.jsonl --set origin.path=$(LARGE)/store.redb
	@echo "== keep-alive, Zipf 0.99" && $(QUICK) '$(CANDIDATE)' --baseline '$(FLOOR) 127' \
		--keys $(DATA) --distribution zipf:0.99 --rate 30k $(SHOWN)
	@echo "== 16 a batch" && $(QUICK) '$(CANDIDATE)' --baseline '$(FLOOR) 127' \
		--keys $(DATA) --distribution zipf:0.99 --rate 250k --pipeline 16 $(SHOWN)
	@echo "== churn, 10 requests a connection" && $(QUICK) '$(CANDIDATE)' \
		--baseline '$(FLOOR) 127 --close-after 10' \
		--keys $(DATA) --distribution zipf:0.99 --rate 15k --churn 10 $(SHOWN)
	@echo "== values of 16 KiB" && $(QUICK) '$(CANDIDATE) --set origin.path=$(LARGE)/store.redb' \
		--baseline '$(FLOOR) 16384' \
		--keys-count 2000 --verify=pattern --distribution zipf:0.99 --rate 20k $(SHOWN)

# What a snapshot costs the shards: their threads are counted, and who has no window is paused.
SNAPSHOTS = target/bench-snapshot
WITHOUT = $(CANDIDATE) --set origin.path=$(SNAPSHOTS)/{port}.redb
WITH = $(WITHOUT) --set snapshot.path=$(SNAPSHOTS)/files
PAUSED = $(BENCH) compare --margin-us 0.7 --window 1 --pause --thread shard --rate 30k \
	--distribution zipf:0.99 --baseline '$(WITHOUT)'
bench-snapshot: host ## Compare a server that writes or reads snapshots with one without; restart it.
	cargo build --release -p pelton -p pelton-bench
	@rm -rf $(SNAPSHOTS) && mkdir -p $(SNAPSHOTS)
	@for port in 18080 18081 18082; do \
		$(PELTON) import $(DATA) --set origin.path=$(SNAPSHOTS)/$$port.redb || exit; done
	@gzip -dc $(DATA) | head -n 20000 > $(SNAPSHOTS)/some.jsonl
	@echo "== while snapshots are written, one a second" && $(PAUSED) --keys $(DATA) --candidate \
		'$(WITH) --set snapshot.interval=1s --set snapshot.rate=16MiB' || test $$? = 3
	@echo "== while one is read" && $(PAUSED) --keys $(SNAPSHOTS)/some.jsonl --candidate \
		'$(WITH) --set snapshot.rate=1MiB' || test $$? = 3
	@bench/warm-restart

# The servers have one CPU, their origin and the generator another one.
bench-overload: ## Offer up to ten times what a server can do, to us, Fastify, NGINX. RUNS= ONLY=
	@.ci/host --install node=nodejs npm nginx=nginx-light setpriv=util-linux
	@bench/overload

# Node from version 20 on: that of Debian 13.
bench-origins: ## Measure misses through Redis beside Fastify with ioredis and NGINX with Lua. ROUNDS=
	@.ci/host --install curl redis-server node=nodejs npm nginx=nginx-light \
		/usr/lib/nginx/modules/ngx_http_lua_module.so=libnginx-mod-http-lua \
		/usr/share/lua/5.1/nginx/redis.lua=lua-nginx-redis
	@bench/origins

# wrk2 calls itself wrk; the flag --rate tells them apart. wrk has closed loops only.
URL = http://127.0.0.1:8080/lookup/2643743
second-opinion: host ## Load URL= with pelton-bench, and with wrk2 or wrk where one is installed. RATE=
	cargo build --release -p pelton-bench
	@for wrk in wrk2 wrk; do \
		if $$wrk --help 2>&1 | grep -q -- --rate; then \
			$(BENCH) load -t1 -c16 -d20s -R$(RATE) -L $(URL) && \
			exec $$wrk -t1 -c16 -d20s -R$(RATE) -L $(URL); exit; \
		fi; \
	done; \
	echo "wrk2 is not installed: closed loops over one connection"; \
	$(BENCH) load -t1 -c1 -d5s --warmup 0 -L $(URL) | grep -v '^ .*[0-9]  ' ; \
	if command -v wrk >/dev/null; then wrk -t1 -c1 -d5s --latency $(URL); \
	else echo "wrk is not installed either: apt-get install wrk"; fi

# The difference of two runs: what they have in common, the start above all, cancels out.
SHARDS = 1 2
instructions: ## Count the server's own instructions a hit; fails 3% above the committed figure.
	@.ci/host --install valgrind
	cargo build --release -p pelton-bench
	@for shards in $(SHARDS); do for requests in 200000 700000; do \
		valgrind --tool=callgrind --callgrind-out-file=/dev/null $(BENCH) replay --keys $(DATA) \
			--shards $$shards --requests $$requests 2>&1 | awk '/Collected/ { print $$4 }'; \
	done | awk -v committed=$$(cat bench/instructions-a-hit) -v shards=$$shards ' \
		NR == 1 { few = $$1 } \
		NR == 2 { hit = ($$1 - few) / 500000 } \
		END { \
			if (hit <= 0) { print "no figure"; exit 1 } \
			printf "%.0f instructions a hit, shards: %d, committed: %d\n", hit, shards, committed; \
			if (hit > committed * 1.03) { print "more than 3% above the committed figure"; exit 1 } \
		}' || exit 1; done

hitratio: host ## Replay traces through the cache, LRU, FIFO, quick_cache and moka; nine minutes.
	cargo build --release -p pelton-bench
	$(BENCH) hitratio --svg target/hitratio.svg

ENTRIES = 1M
speed: host ## Time the cache beside quick_cache, moka and a plain map. ENTRIES=
	cargo build --release -p pelton-bench
	$(BENCH) speed --entries $(ENTRIES)

mesh: host ## Time the way to another shard and back, beside the same copies without it.
	cargo build --release -p pelton-bench
	$(BENCH) mesh

copies: host ## Count reads of other shards' keys, beside how many there must be with as many copies.
	cargo build --release -p pelton-bench
	$(BENCH) copies

# Only what the caches do is counted; what two runs have in common, filling them, cancels out.
speed-instructions: host ## Count the instructions of a hit, a miss and a store, ours and of peers.
	@.ci/host --install valgrind
	cargo build --release -p pelton-bench
	@for operation in hit miss store; do \
		for cache in pelton batched hashbrown quick-cache moka; do \
			case $$operation-$$cache in store-batched | store-hashbrown) continue ;; esac; \
			for rounds in 2 6; do \
				valgrind --tool=callgrind --callgrind-out-file=/dev/null \
					--toggle-collect='*::read_all' --toggle-collect='*::store_all' \
					$(BENCH) speed --entries 100k --operations 100k --only $$cache \
					--operation $$operation --rounds $$rounds 2>&1 | \
					awk '/Collected/ { print $$4 }'; \
			done | awk -v what="$$operation $$cache" 'NR == 1 { few = $$1 } \
				NR == 2 { printf "%s: %.0f instructions\n", what, ($$1 - few) / 400000 }'; \
		done; \
	done

clean: ## Remove what was built. The store under pelton-data stays.
	cargo clean
