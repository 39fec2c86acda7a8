//! PostgreSQL as the origin: servers that we start, lock, restart and change under its feet.

mod cluster;
mod tier;
mod writes;

use crate::certificate::Certificate;
use cluster::Cluster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{Process, until};

const QUERY: &str = "postgres.query=SELECT value, content_type, ttl_ms FROM items WHERE key = $1";

/// Nothing is fresh for long, and it is served while the origin fails.
const SHORT: &[&str] = &["cache.ttl=1ms", "cache.stale_while_revalidate=0s", QUERY];

/// Pelton before the databases.
fn serve(urls: &[String], sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let urls = format!("postgres.urls={urls:?}");
    let server =
        Process::start(&fixture.store(), &[&["origin.kind=postgres", &*urls], sets].concat());
    (fixture, server)
}

fn get(server: &Process, key: &str) -> Reply {
    Client::new(server.connect()).get(&format!("/lookup/{key}"))
}

/// As it is documented: in which of two databases a key is.
fn partition_of(key: &str) -> usize {
    let mut crc = flate2::Crc::new();
    crc.update(key.as_bytes());
    crc.sum() as usize % 2
}

/// The first so many keys of a partition.
fn keys_of(partition: usize, count: usize) -> Vec<String> {
    let keys = (0..).map(|number| format!("k{number}"));
    keys.filter(|key| partition_of(key) == partition).take(count).collect()
}

/// Two databases that say of every key in which one it is.
fn pair() -> [Cluster; 2] {
    [0, 1].map(|partition| {
        let cluster = Cluster::start();
        cluster.sql(&format!(
            "INSERT INTO items SELECT convert_to('k' || n, 'UTF8'), 'in {partition}', \
             'text/plain' FROM generate_series(0, 99) n"
        ));
        cluster
    })
}

fn urls(pair: &[Cluster; 2]) -> Vec<String> {
    pair.iter().map(Cluster::url).collect()
}

/// What it has logged, once it has ended.
fn log_of(mut server: Process) -> String {
    kill(Pid::from_raw(server.id()), Signal::SIGTERM).unwrap();
    let words = server.last_words().join("\n");
    assert!(server.wait().success());
    words
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn each_key_is_asked_of_its_own_partition() {
    let pair = pair();
    let (_fixture, server) = serve(&urls(&pair), &[QUERY]);
    for number in 0..100 {
        let key = format!("k{number}");
        let reply = get(&server, &key);
        assert_eq!((reply.status, reply.text()), (200, &*format!("in {}", partition_of(&key))));
    }
    assert_eq!(get(&server, "absent").status, 404);
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn values_are_told_as_the_row_tells_them() {
    let cluster = Cluster::start();
    cluster.sql(
        "INSERT INTO items VALUES ('typed', 'a', 'text/csv', 7200000), \
         ('plain', '\\x00ff', NULL, NULL), ('a/b\\377', 'c', NULL, NULL), \
         ('null', NULL, 'text/csv', 1), ('bad', 'd', 'text/html' || chr(10), NULL), \
         ('large', convert_to(repeat('x', 1001), 'UTF8'), NULL, NULL)",
    );
    let (_fixture, server) = serve(&[cluster.url()], &[QUERY, "cache.value_size_max=1000B"]);
    for (key, status, content_type, body) in [
        ("typed", 200, "text/csv", &b"a"[..]),
        ("plain", 200, "application/octet-stream", b"\x00\xff"),
        ("a%2Fb%ff", 200, "application/octet-stream", b"c"),
        ("null", 404, "application/json", br#"{"error":"not_found"}"#),
        ("absent", 404, "application/json", br#"{"error":"not_found"}"#),
        ("bad", 502, "application/json", br#"{"error":"origin_unavailable"}"#),
        ("large", 502, "application/json", br#"{"error":"origin_unavailable"}"#),
    ] {
        let reply = get(&server, key);
        let of_type = reply.header("content-type").unwrap();
        assert_eq!((reply.status, of_type, &*reply.body), (status, content_type, body), "{key}");
    }
    let fresh_s = |key| {
        let reply = get(&server, key);
        let field = reply.header("cache-control").unwrap().to_owned();
        let number = field.strip_prefix("max-age=").unwrap().split(',').next().unwrap().to_owned();
        number.parse::<u32>().unwrap()
    };
    assert!(fresh_s("typed") > 5_000 && fresh_s("plain") <= 60);
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn documents_are_json_and_a_key_that_is_no_text_is_absent() {
    let cluster = Cluster::start();
    cluster.sql(
        "CREATE TABLE documents (id bigint, value jsonb); \
         INSERT INTO documents VALUES (7, '{\"a\": [1, null]}')",
    );
    let of_number = "postgres.query=SELECT value FROM documents WHERE id = $1::text::bigint";
    let (_fixture, server) = serve(&[cluster.url()], &[of_number]);
    let reply = get(&server, "7");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.text(), r#"{"a": [1, null]}"#);
    assert_eq!(get(&server, "8").status, 404);
    assert_eq!(get(&server, "%ff").status, 404);
    assert_eq!(get(&server, "a%00b").status, 404);
    assert_eq!(get(&server, "seven").status, 502, "the server refuses the cast");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn while_one_server_is_down_its_keys_are_stale_and_others_as_ever() {
    let mut pair = pair();
    let (_fixture, server) = serve(&urls(&pair), SHORT);
    let [down, up] = [0, 1].map(|partition| keys_of(partition, 20));
    assert_eq!(get(&server, &down[0]).text(), "in 0");
    pair[0].stop();
    for key in &up {
        assert_eq!(get(&server, &down[0]).text(), "in 0");
        assert_eq!(get(&server, &down[1]).status, 502);
        assert_eq!(get(&server, key).text(), "in 1");
    }
    pair[0].run();
    pair[0].sql("UPDATE items SET value = 'new'");
    until("a fresh value of the first", || get(&server, &down[0]).text() == "new");
    until("a value of the second", || get(&server, &down[1]).status == 200);
    let log = log_of(server);
    assert!(log.contains("a connection to the origin has ended"), "{log}");
    assert!(log.contains("no connection to a server of the origin"), "{log}");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn a_table_that_is_locked_costs_only_its_own_keys() {
    let pair = pair();
    let (_fixture, server) = serve(&urls(&pair), &[SHORT, &["origin.timeout=1s"]].concat());
    let [locked, free] = [0, 1].map(|partition| keys_of(partition, 20));
    assert_eq!(get(&server, &locked[0]).text(), "in 0");
    let lock = pair[0].transaction("LOCK TABLE items IN ACCESS EXCLUSIVE MODE");
    assert_eq!(get(&server, &locked[1]).status, 504);
    for key in &free {
        assert_eq!(get(&server, key).text(), "in 1");
    }
    let stale = get(&server, &locked[0]);
    assert_eq!((stale.status, stale.text()), (200, "in 0"));
    // The server was told how long it has: nothing of ours waits for the lock for ever.
    pair[0].wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted", "0");
    lock.commit();
    pair[0].sql("UPDATE items SET value = 'new'");
    until("a fresh value of the first", || get(&server, &locked[0]).text() == "new");
    until("a value of the second", || get(&server, &locked[1]).status == 200);
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn many_queries_share_few_connections_that_are_made_when_they_are_needed() {
    let [cluster, _] = pair();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pelton'";
    let sets = [QUERY, "origin.timeout=30s", "postgres.connections=2"];
    let (_fixture, server) = serve(&[cluster.url()], &sets);
    assert_eq!(cluster.sql(sessions), "0");
    for number in 0..10 {
        assert_eq!(get(&server, &format!("k{number}")).status, 200);
    }
    assert_eq!(cluster.sql(sessions), "1");
    let lock = cluster.transaction("LOCK TABLE items IN ACCESS EXCLUSIVE MODE");
    let ask = |number: usize| {
        let mut client = Client::new(server.connect());
        let request = format!("GET /lookup/k{number} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.send(request.as_bytes()).unwrap();
        client
    };
    let clients: Vec<_> = (10..30).map(ask).collect();
    cluster.wait_until("SELECT count(*) FROM pg_locks WHERE NOT granted", "2");
    lock.commit();
    for mut client in clients {
        assert_eq!(client.receive(false).unwrap().text(), "in 0");
    }
    assert_eq!(cluster.sql(sessions), "2");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn a_query_outlives_changes_of_the_schema() {
    let cluster = Cluster::start();
    cluster.sql("INSERT INTO items VALUES ('one', '1'), ('two', '2'), ('three', '3')");
    let (_fixture, server) = serve(&[cluster.url()], &[]);
    assert_eq!(get(&server, "one").header("content-type"), Some("application/octet-stream"));
    cluster.sql("ALTER TABLE items ALTER value TYPE text USING convert_from(value, 'UTF8')");
    let reply = get(&server, "two");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.text(), "2");
    cluster.sql("ALTER TABLE items ALTER key TYPE text USING convert_from(key, 'UTF8')");
    assert_eq!(get(&server, "three").status, 502, "no operator compares text with bytes");
    until("it is asked for again", || get(&server, "three").text() == "3");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn what_is_wrong_with_a_query_is_logged_and_can_be_mended_meanwhile() {
    for (query, what) in [
        ("SELECT value FROM missing WHERE key = $1", "relation \"missing\" does not exist"),
        ("SELEC value", "syntax error"),
        ("SELECT key, value FROM items WHERE key = $1", "returns value beside"),
        ("SELECT 1 FROM items WHERE key = $1", "of type int4"),
        ("SELECT value FROM items WHERE key >= $1", "an unexpected number of rows"),
    ] {
        let cluster = Cluster::start();
        cluster.sql("INSERT INTO items VALUES ('one', '1'), ('two', '2')");
        let (_fixture, server) = serve(&[cluster.url()], &[&format!("postgres.query={query}")]);
        assert_eq!(get(&server, "one").status, 502, "{query}");
        if query.contains("missing") {
            cluster.sql("ALTER TABLE items RENAME TO missing");
            until("it is asked for again", || get(&server, "one").text() == "1");
        }
        let log = log_of(server);
        assert!(log.contains(what) && log.contains("the origin cannot be asked"), "{log}");
    }
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn a_server_that_asks_for_tls_and_a_password_gets_both() {
    let mut cluster = Cluster::start();
    cluster.sql("INSERT INTO items VALUES ('k', 'v')");
    cluster.sql("CREATE USER other; ALTER USER pelton PASSWORD 'a secret'");
    cluster.stop();
    let fixture = Fixture::empty();
    let own = Certificate::make(&fixture.path(""));
    for (file, setting) in [(&own.certificate, "ssl_cert_file"), (&own.key, "ssl_key_file")] {
        let text = std::fs::read_to_string(file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        cluster.set(&format!("{setting} = '{}'", cluster.file(name, &text).display()));
    }
    cluster.set("ssl = on");
    cluster.admit("host all other all trust\nhostssl all all all scram-sha-256\n");
    cluster.run_for("other");
    let url = cluster.url().replace("sslmode=disable", "sslmode=require");
    let ca = own.setting();
    for (password, status) in [("a secret\n", 200), ("another\n", 502)] {
        std::fs::write(fixture.path("password"), password).unwrap();
        let file = format!("postgres.password_file={}", fixture.path("password").display());
        let (_fixture, server) = serve(std::slice::from_ref(&url), &[&*file, &ca]);
        assert_eq!(get(&server, "k").status, status);
        let shown = server.admin("/config").1 + &server.admin("/stats").1;
        let log = log_of(server);
        assert!(!shown.contains(password.trim_end()) && !log.contains(password.trim_end()));
        assert_eq!(log.contains("password authentication failed"), status == 502, "{log}");
    }
    let (_fixture, server) = serve(std::slice::from_ref(&url), &[]);
    assert_eq!(get(&server, "k").status, 502, "nobody vouches for it");
}
