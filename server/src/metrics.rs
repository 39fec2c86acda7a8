//! What a shard counts: one table with a sentence each, and how it is published.
//!
//! A shard owns plain integers and stores them into a [`Board`] at most once a millisecond;
//! readers load them when they like. No reader ever stops a shard, and no shard waits for one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One row of the table: how a counter appears in `/metrics`.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Field of [`Counters`].
    pub field: &'static str,
    /// Metric name, with the prefix `pelton_` and without the suffix `_total`.
    pub name: &'static str,
    /// Labels as `key="value"`, or empty.
    pub label: &'static str,
    /// Whether it only grows.
    pub class: Class,
    /// What it means, for an operator.
    pub sentence: &'static str,
}

/// How a value behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Only grows; shards are summed.
    Counter,
    /// A level; shards are summed.
    Gauge,
}

/// Declares a struct of counters and its table from one list.
macro_rules! counters {
    ($(#[$doc:meta])+ $Counters:ident, $TABLE:ident:
        $($field:ident, $class:ident, $name:literal, $label:literal, $sentence:literal;)+) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $Counters { $(#[doc = $sentence] pub $field: u64,)+ }

        /// Every counter, in the order of its values.
        pub const $TABLE: &[Row] = &[$(Row {
            field: stringify!($field),
            name: $name,
            label: $label,
            class: Class::$class,
            sentence: $sentence,
        },)+];

        impl $Counters {
            /// The values in the order of the table.
            #[must_use]
            pub const fn values(&self) -> [u64; $TABLE.len()] {
                [$(self.$field,)+]
            }

            /// Counters from values in the order of the table.
            #[must_use]
            pub const fn from_values(values: &[u64; $TABLE.len()]) -> Self {
                let [$($field,)+] = *values;
                Self { $($field,)+ }
            }
        }
    };
}

counters! {
    /// One shard's counters and gauges.
    Counters, TABLE:
    requests_hit, Counter, "pelton_requests", r#"outcome="hit""#, "Lookups answered from memory.";
    requests_write, Counter, "pelton_requests", r#"outcome="write""#, "Writes that the origin has taken.";
    requests_negative, Counter, "pelton_requests", r#"outcome="negative""#, "Lookups answered 404 from memory.";
    requests_miss, Counter, "pelton_requests", r#"outcome="miss""#, "Lookups that led a fetch from the origin.";
    requests_collapsed, Counter, "pelton_requests", r#"outcome="collapsed""#, "Lookups that joined a fetch already under way.";
    requests_stale, Counter, "pelton_requests", r#"outcome="stale""#, "Lookups answered from memory beyond the entry's freshness.";
    requests_health, Counter, "pelton_requests", r#"outcome="health""#, "Health checks answered on the data port.";
    requests_refused, Counter, "pelton_requests", r#"outcome="refused""#, "Requests answered 4xx or 5xx because of the request itself.";
    requests_unauthorized, Counter, "pelton_requests", r#"outcome="unauthorized""#, "Requests answered 401: they show no key, or nobody's.";
    requests_forbidden, Counter, "pelton_requests", r#"outcome="forbidden""#, "Requests answered 403: their tenant may not do that.";
    requests_limited, Counter, "pelton_requests", r#"outcome="rate_limited""#, "Requests answered 429: their tenant has used up its rate.";
    requests_shed, Counter, "pelton_requests", r#"outcome="shed""#, "Requests answered 503 because a bound of the shard was reached.";
    requests_error, Counter, "pelton_requests", r#"outcome="error""#, "Lookups answered 502 or 504 because the origin failed.";
    batches, Counter, "pelton_batches", "", "Batches that were answered.";
    batch_keys, Counter, "pelton_batch_keys", "", "Keys of batches; each is counted among the requests as well.";
    replies_continue, Counter, "pelton_replies_continue", "", "Interim replies 100 to clients that wait to send their body.";
    replies_not_modified, Counter, "pelton_replies_not_modified", "", "Replies 304, counted among the outcomes as well.";
    request_bytes, Counter, "pelton_request_bytes", "", "Bytes received.";
    reply_bytes, Counter, "pelton_reply_bytes", "", "Bytes the kernel took for sending.";
    connections_handed, Counter, "pelton_connections_handed", "", "Connections handed to a shard that had fewer; each was accepted by the one that counts it.";
    connections_open, Gauge, "pelton_connections_open", "", "Connections that hold a slot.";
    connections_accepted, Counter, "pelton_connections_accepted", "", "Connections accepted.";
    closed_peer_closed, Counter, "pelton_connections_closed", r#"reason="peer_closed""#, "The peer closed and was owed nothing more.";
    closed_peer_vanished, Counter, "pelton_connections_closed", r#"reason="peer_vanished""#, "The peer reset the connection, or closed it before its replies were sent.";
    closed_requested, Counter, "pelton_connections_closed", r#"reason="requested""#, "The peer asked for it.";
    closed_refused, Counter, "pelton_connections_closed", r#"reason="refused""#, "A request broke the protocol or a limit.";
    closed_idle_timeout, Counter, "pelton_connections_closed", r#"reason="idle_timeout""#, "No request came within http.idle_timeout.";
    closed_header_timeout, Counter, "pelton_connections_closed", r#"reason="header_timeout""#, "A request head was not complete in time.";
    closed_body_timeout, Counter, "pelton_connections_closed", r#"reason="body_timeout""#, "A request body was not complete in time.";
    closed_write_timeout, Counter, "pelton_connections_closed", r#"reason="write_timeout""#, "The peer took no byte of a reply in time.";
    closed_input_bound, Counter, "pelton_connections_closed", r#"reason="input_bound""#, "The shard's bound on unread input was reached.";
    closed_output_bound, Counter, "pelton_connections_closed", r#"reason="output_bound""#, "The shard ran out of output blocks, or slow readers held too much of its cache.";
    closed_slots_full, Counter, "pelton_connections_closed", r#"reason="slots_full""#, "Closed at once: no shard had room. Consider raising the limit on open files.";
    closed_new_bound, Counter, "pelton_connections_closed", r#"reason="new_bound""#, "Refused: too many connections of the shard had not sent a whole request.";
    closed_address_bound, Counter, "pelton_connections_closed", r#"reason="address_bound""#, "Refused: its address had too many connections.";
    closed_requests_bound, Counter, "pelton_connections_closed", r#"reason="requests_bound""#, "It had sent as many requests as it may.";
    closed_draining, Counter, "pelton_connections_closed", r#"reason="draining""#, "The server was stopping.";
    closed_socket_error, Counter, "pelton_connections_closed", r#"reason="socket_error""#, "The kernel reported an error on the socket.";
    accept_failures, Counter, "pelton_accept_failures", "", "Accepts that failed for want of descriptors or memory. Consider raising the limit on open files.";
    accept_pauses, Counter, "pelton_accept_pauses", "", "Pauses of a shard's accepts, because no shard had room for another connection.";
    accepts_paused, Gauge, "pelton_accepts_paused", "", "Shards that accept nothing, because none has room: new connections wait in the kernel.";
    handles_active, Gauge, "pelton_shard_handles_active", "", "Submissions in flight on the ring.";
    turns, Counter, "pelton_shard_turns", "", "Turns of the loop.";
    busy_ns, Counter, "pelton_shard_busy_nanoseconds", "", "Time spent outside the wait.";
    waited_ns, Counter, "pelton_shard_waited_nanoseconds", "", "Time spent waiting.";
    ring_enters, Counter, "pelton_uring_enter", "", "Times the kernel was entered.";
    ring_submissions, Counter, "pelton_uring_submissions", "", "Submissions handed to the kernel.";
    ring_completions, Counter, "pelton_uring_completions", "", "Completions taken.";
    ring_overflows, Counter, "pelton_uring_cq_overflow", "", "Turns that found the completion queue overflown. Should be zero.";
    ring_submissions_delayed, Counter, "pelton_uring_sq_full", "", "Submissions that waited for room in the submission queue.";
    buffers_starved, Counter, "pelton_uring_buffers_starved", "", "Receives that ended because no buffer was free; armed again when there were some.";
    buffers_held, Gauge, "pelton_uring_buffers_held", "", "Receive buffers that hold unread input.";
    receives_paused, Counter, "pelton_receives_paused", "", "Receives cancelled because a connection held its bound of unread input.";
    sends_short, Counter, "pelton_sends_short", "", "Sends that took fewer bytes than asked.";
    sends_put_off, Counter, "pelton_sends_put_off", "", "Sends that waited for the next turn, since this one had sent enough.";
    completions_stale, Counter, "pelton_completions_stale", "", "Completions of an earlier life of a slot. Should be zero.";
    remote_reads, Counter, "pelton_remote_reads", "", "Lookups sent to the shard that owns the key.";
    remote_served, Counter, "pelton_remote_served", "", "Lookups answered for other shards.";
    remote_pieces, Counter, "pelton_remote_pieces", "", "Further pieces of large values sent to other shards.";
    lent_withdrawn, Counter, "pelton_remote_withdrawn", "", "Large values whose rest was kept from another shard, whose client was slow, for want of room.";
    replica_hits, Counter, "pelton_replica_hits", "", "Lookups answered from a copy of another shard's value.";
    replica_entries, Gauge, "pelton_replica_entries", "", "Copies of other shards' values.";
    replica_bytes, Gauge, "pelton_replica_bytes", "", "Bytes of copies of other shards' values.";
    replica_stored, Counter, "pelton_replica_stored", "", "Copies of other shards' values that were kept.";
    replica_grants, Counter, "pelton_replica_grants", "", "Copies of own values that other shards were given.";
    replica_invalidations, Counter, "pelton_replica_invalidations", "", "Requests to other shards to drop a copy of an own value.";
    replica_epochs, Counter, "pelton_replica_epochs", "", "Requests to another shard to drop its copies of all own values.";
    replica_leases_withheld, Counter, "pelton_replica_leases_withheld", "", "Leases that were not renewed, since their holder owed an answer for too long.";
    wakes_sent, Counter, "pelton_shard_wakes", "", "Wake-ups sent to other shards.";
    flights_led, Counter, "pelton_origin_fetches", "", "Fetches asked of the origin.";
    flights_active, Gauge, "pelton_origin_in_flight", "", "Fetches under way.";
    flights_failed, Counter, "pelton_origin_failures", "", "Fetches that failed.";
    fetches_paused, Counter, "pelton_origin_fetches_paused", "", "Fetches not asked of the origin, since one of the same key had failed just before.";
    fetches_early, Counter, "pelton_origin_fetches_early", "", "Fetches of values that were asked for often, before they were stale.";
    fetches_shed, Counter, "pelton_overload_fetches_refused", "", "Misses that were not fetched, since the shard had more to do than it could.";
    overload_level, Gauge, "pelton_overload_level", "", "0: normal. 1: elevated. 2: brownout. 3: shed. 4: emergency.";
    overload_raised_lag, Counter, "pelton_overload_level_changes", r#"reason="lag""#, "Times the level rose since turns took too long.";
    overload_raised_busy, Counter, "pelton_overload_level_changes", r#"reason="busy""#, "Times the level rose since the shard was busy for 85% of its time.";
    overload_raised_cpu, Counter, "pelton_overload_level_changes", r#"reason="cpu""#, "Times the level rose since the control group or the host was short of CPU time.";
    overload_raised_memory, Counter, "pelton_overload_level_changes", r#"reason="memory""#, "Times the level rose since the control group was short of memory.";
    overload_lowered, Counter, "pelton_overload_level_changes", r#"reason="calm""#, "Times the level fell.";
    overload_lag_ns, Gauge, "pelton_overload_lag_nanoseconds", "", "The lag of the loop that decides on the level.";
    fetches_void, Counter, "pelton_origin_fetches_void", "", "Fetches whose key was purged meanwhile: what they bring is not kept.";
    fetches_unchanged, Counter, "pelton_origin_fetches_unchanged", "", "Fetches to which the origin said that the value in memory is still the one: it is as good as new.";
    purges, Counter, "pelton_shard_purges", "", "Purges put in force; each is counted by every shard.";
    forgotten, Counter, "pelton_forgotten", "", "Keys dropped since their origin says that they have changed.";
    cache_entries, Gauge, "pelton_cache_entries", "", "Entries in memory.";
    cache_bytes, Gauge, "pelton_cache_bytes", "", "Bytes of entries in memory.";
    cache_capacity_bytes, Gauge, "pelton_cache_capacity_bytes", "", "Bytes of the arena that are ready for entries.";
    cache_stored, Counter, "pelton_cache_stored", "", "Entries stored.";
    cache_evicted, Counter, "pelton_cache_evictions", r#"reason="capacity""#, "Entries dropped to make room.";
    cache_expired, Counter, "pelton_cache_evictions", r#"reason="ttl""#, "Entries dropped because their time was over.";
    cache_purged, Counter, "pelton_cache_evictions", r#"reason="purge""#, "Entries dropped because a purge hides them.";
    cache_replaced, Counter, "pelton_cache_evictions", r#"reason="replaced""#, "Entries dropped for a newer one of their key.";
    cache_moved_bytes, Counter, "pelton_cache_moved_bytes", "", "Bytes of entries that were spared when their segment was emptied.";
    cache_spilled_bytes, Counter, "pelton_cache_spilled_bytes", "", "Bytes of entries copied out of segments that slow readers held.";
    cache_condemned_bytes, Gauge, "pelton_cache_condemned_bytes", "", "Bytes of segments without entries that sends hold.";
    cache_store_refused, Counter, "pelton_cache_admission_rejected", "", "Values that were not stored: too large, or no room.";
    restored, Counter, "pelton_snapshot_entries", r#"outcome="restored""#, "Entries of a snapshot that are back in memory.";
    restore_known, Counter, "pelton_snapshot_entries", r#"outcome="known""#, "Entries of a snapshot whose key was in memory already.";
    restore_dead, Counter, "pelton_snapshot_entries", r#"outcome="dead""#, "Entries of a snapshot whose time was over.";
    restore_withdrawn, Counter, "pelton_snapshot_entries", r#"outcome="withdrawn""#, "Entries of a snapshot that were purged or removed before they were back.";
    restore_too_large, Counter, "pelton_snapshot_entries", r#"outcome="too_large""#, "Entries of a snapshot that exceed a bound of today.";
    restore_no_room, Counter, "pelton_snapshot_entries", r#"outcome="no_room""#, "Entries of a snapshot for which others would have had to leave.";
}

counters! {
    /// What a shard counts of one tenant.
    TenantCounters, TENANT_TABLE:
    admitted, Counter, "pelton_tenant_requests", r#"outcome="admitted""#, "Requests within the tenant's rate; each key of a batch is one.";
    limited, Counter, "pelton_tenant_requests", r#"outcome="rate_limited""#, "Requests beyond the tenant's rate.";
    forbidden, Counter, "pelton_tenant_requests", r#"outcome="forbidden""#, "Requests that the tenant may not make.";
    connections, Gauge, "pelton_tenant_connections_open", "", "Connections on which the tenant was the last to ask.";
    cache_bytes, Gauge, "pelton_tenant_cache_bytes", "", "Bytes of the cache that the tenant takes; 0 where it has no share of it.";
}

counters! {
    /// What the storage plane counts.
    SnapshotCounters, SNAPSHOT_TABLE:
    written, Counter, "pelton_snapshots", r#"outcome="written""#, "Snapshots that were written.";
    failed, Counter, "pelton_snapshots", r#"outcome="failed""#, "Snapshots that were not written because of the disk; the one before still counts.";
    spoiled, Counter, "pelton_snapshots", r#"outcome="spoiled""#, "Snapshots that were given up because more was removed meanwhile than a shard remembers.";
    written_at_s, Gauge, "pelton_snapshot_written_timestamp_seconds", "", "When the last snapshot was complete, in seconds since 1970.";
    size, Gauge, "pelton_snapshot_size_bytes", "", "Bytes of the last snapshot.";
    entries, Gauge, "pelton_snapshot_written_entries", "", "Entries of the last snapshot.";
    duration_ms, Gauge, "pelton_snapshot_duration_milliseconds", "", "How long the last snapshot took to write.";
    load_ms, Gauge, "pelton_snapshot_load_milliseconds", "", "How long the snapshot took to read at start; 0 if none was.";
    refused, Counter, "pelton_snapshots_refused", "", "Snapshots that could not be read or believed; the log says why.";
    dropped, Counter, "pelton_snapshot_entries_dropped", r#"reason="damaged""#, "Entries of a snapshot in pages that could not be read or believed.";
    withdrawn, Counter, "pelton_snapshot_entries_dropped", r#"reason="withdrawn""#, "Entries of a snapshot that were purged or removed while it was written.";
    outdated, Counter, "pelton_snapshot_entries_dropped", r#"reason="outdated""#, "Entries of a snapshot that the origin holds no more, or otherwise.";
}

counters! {
    /// What samples of changed keys have shown.
    SampleCounters, SAMPLE_TABLE:
    consistent, Counter, "pelton_origin_samples", r#"outcome="consistent""#, "Changed keys of which, 1 s later, was served what the origin had.";
    inconsistent, Counter, "pelton_origin_samples", r#"outcome="inconsistent""#, "Changed keys of which, 1 s later, something older was served.";
    unserved, Counter, "pelton_origin_samples", r#"outcome="unserved""#, "Changed keys of which, 1 s later, nothing was served without asking the origin.";
    unknown, Counter, "pelton_origin_samples", r#"outcome="unknown""#, "Changed keys of which, 1 s later, the origin did not say what it had.";
    inconsistent_5s, Counter, "pelton_origin_inconsistent", r#"window="5s""#, "Those of which something older was served still 5 s later.";
    inconsistent_60s, Counter, "pelton_origin_inconsistent", r#"window="60s""#, "Those of which something older was served still 60 s later. Should be zero.";
}

counters! {
    /// What is known of one server of the origin.
    ServerCounters, SERVER_TABLE:
    answered, Counter, "pelton_origin_server_requests", r#"outcome="answered""#, "Requests that the server answered.";
    failed, Counter, "pelton_origin_server_requests", r#"outcome="failed""#, "Requests that failed, at the server or on the way.";
    timed_out, Counter, "pelton_origin_server_requests", r#"outcome="timed_out""#, "Requests that were not answered within origin.timeout.";
    refused, Counter, "pelton_origin_server_requests", r#"outcome="refused""#, "Requests that were not sent: the queue was full, or the wait too long.";
    broken, Counter, "pelton_origin_server_requests", r#"outcome="broken""#, "Requests that were not sent: the breaker was open.";
    retried, Counter, "pelton_origin_server_retries", "", "Requests that were sent once more; each is counted twice among the outcomes.";
    breaker, Gauge, "pelton_origin_server_breaker_state", "", "0: closed, all may pass. 1: half open, a few try the server. 2: open, it is left alone.";
    limit, Gauge, "pelton_origin_server_limit", "", "Requests that the server may be sent at a time now; origin.requests_max at most.";
    in_flight, Gauge, "pelton_origin_server_in_flight", "", "Requests that the server has. More than the limit where that has just become less.";
    waiting, Gauge, "pelton_origin_server_waiting", "", "Requests that wait to be sent.";
}

/// Where the storage plane publishes.
pub type SnapshotBoard = Arc<Mutex<SnapshotCounters>>;

/// Where the origin plane publishes what its samples have shown.
pub type SampleBoard = Arc<Mutex<SampleCounters>>;

/// Where one shard publishes and others read. Aligned so that two shards share no cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Board {
    values: [AtomicU64; TABLE.len()],
    /// Completed turns, stored at every turn: the watchdog's sign of life.
    turns: AtomicU64,
    /// Monotonic nanoseconds of the newest turn's wake.
    woke_ns: AtomicU64,
    /// What is counted of each tenant, by its index.
    tenants: Box<[[AtomicU64; TENANT_TABLE.len()]]>,
}

impl Board {
    /// A board of zeroes, without tenants.
    #[must_use]
    pub fn new() -> Self {
        Self::with_tenants(0)
    }

    /// A board of zeroes, of so many tenants.
    #[must_use]
    pub fn with_tenants(count: usize) -> Self {
        Self {
            tenants: (0..count).map(|_| [const { AtomicU64::new(0) }; _]).collect(),
            values: [const { AtomicU64::new(0) }; TABLE.len()],
            turns: AtomicU64::new(0),
            woke_ns: AtomicU64::new(0),
        }
    }

    /// Stores the sign of life of one turn.
    pub fn beat(&self, turns: u64, woke_ns: u64) {
        self.turns.store(turns, Ordering::Release);
        self.woke_ns.store(woke_ns, Ordering::Release);
    }

    /// Turns completed, as of the last beat.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// When the newest turn woke: monotonic nanoseconds.
    #[must_use]
    pub fn woke_ns(&self) -> u64 {
        self.woke_ns.load(Ordering::Acquire)
    }

    /// Stores all counters. Values are independent: a reader may see some older than others.
    pub fn publish(&self, counters: &Counters) {
        for (cell, value) in self.values.iter().zip(counters.values()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Stores the counters of one tenant.
    pub fn publish_tenant(&self, tenant: usize, counters: &TenantCounters) {
        for (cell, value) in self.tenants[tenant].iter().zip(counters.values()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The counters of one tenant as last published, in the order of [`TENANT_TABLE`].
    #[must_use]
    pub fn read_tenant(&self, tenant: usize) -> [u64; TENANT_TABLE.len()] {
        self.tenants[tenant].each_ref().map(|cell| cell.load(Ordering::Relaxed))
    }

    /// The counters as last published.
    #[must_use]
    pub fn read(&self) -> Counters {
        let mut values = [0; TABLE.len()];
        for (value, cell) in values.iter_mut().zip(&self.values) {
            *value = cell.load(Ordering::Relaxed);
        }
        Counters::from_values(&values)
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}
