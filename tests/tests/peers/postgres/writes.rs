//! Writes to PostgreSQL: what is answered is there, and what was there decides.

use super::cluster::Cluster;
use super::{QUERY, get, serve};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{Process, until};

pub(super) const TOKEN: &str = "a-token-of-some-thirty-characters";

const PUT: &str = "postgres.put=INSERT INTO items (key, value, content_type) VALUES ($1, $2, $3) \
     ON CONFLICT (key) DO UPDATE SET value = $2, content_type = $3";

const DELETE: &str = "postgres.delete=DELETE FROM items WHERE key = $1";

/// Sessions of ours that wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

pub(super) fn serve_writes(cluster: &Cluster, sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let token = fixture.token_file(TOKEN);
    let own = ["http.writes=true", &*token, QUERY, PUT, DELETE];
    let (_store, server) = serve(&[cluster.url()], &[&own, sets].concat());
    (fixture, server)
}

fn request(method: &str, key: &str, lines: &str, body: &str) -> String {
    let size = body.len();
    let length =
        if method == "PUT" { format!("Content-Length: {size}\r\n") } else { String::new() };
    format!(
        "{method} /lookup/{key} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: text/plain\r\n{length}{lines}\r\n{body}"
    )
}

/// Sends a request, and leaves its answer to be read.
fn send(server: &Process, method: &str, key: &str, lines: &str, body: &str) -> Client {
    let mut client = Client::new(server.connect());
    client.send(request(method, key, lines, body).as_bytes()).unwrap();
    client
}

fn answer(mut client: Client) -> Reply {
    client.receive(false).unwrap()
}

pub(super) fn put(server: &Process, key: &str, lines: &str, body: &str) -> Reply {
    answer(send(server, "PUT", key, lines, body))
}

pub(super) fn delete(server: &Process, key: &str, lines: &str) -> u16 {
    answer(send(server, "DELETE", key, lines, "")).status
}

fn etag(reply: &Reply) -> String {
    reply.header("ETag").unwrap().to_owned()
}

fn rows(cluster: &Cluster) -> String {
    cluster.sql(
        "SELECT convert_from(key, 'UTF8'), convert_from(value, 'UTF8'), content_type \
                 FROM items ORDER BY 1",
    )
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn what_was_written_is_in_the_database_and_what_is_there_decides() {
    let cluster = Cluster::start();
    let (_fixture, server) = serve_writes(&cluster, &[]);
    assert_eq!(get(&server, "k").status, 404, "a negative entry");
    let first = put(&server, "k", "", "one");
    assert_eq!((first.status, rows(&cluster).as_str()), (201, "k|one|text/plain"));
    let reply = get(&server, "k");
    assert_eq!((reply.text(), etag(&reply)), ("one", etag(&first)));
    let second = put(&server, "k", &format!("If-Match: {}\r\n", etag(&first)), "two");
    assert_eq!((second.status, rows(&cluster).as_str()), (204, "k|two|text/plain"));
    assert_eq!(put(&server, "k", &format!("If-Match: {}\r\n", etag(&first)), "3").status, 412);
    assert_eq!(put(&server, "k", "If-None-Match: *\r\n", "3").status, 412);
    assert_eq!(put(&server, "new", "If-Match: *\r\n", "3").status, 412);
    assert_eq!(put(&server, "new", "If-None-Match: *\r\n", "new").status, 201);
    assert_eq!(rows(&cluster), "k|two|text/plain\nnew|new|text/plain");
    // Somebody else writes: our cache does not know, the database does.
    cluster.sql("UPDATE items SET value = 'three' WHERE key = 'k'");
    let if_two = format!("If-Match: {}\r\n", etag(&second));
    assert_eq!(put(&server, "k", &if_two, "4").status, 412);
    assert_eq!(delete(&server, "k", &if_two), 412);
    assert_eq!(get(&server, "k").text(), "three", "what was cached is dropped");
    let if_three = format!("If-Match: {}\r\n", etag(&get(&server, "k")));
    assert_eq!(delete(&server, "k", &if_three), 204);
    assert_eq!(delete(&server, "new", ""), 204);
    assert_eq!((delete(&server, "new", ""), rows(&cluster).as_str()), (404, ""));
    assert_eq!(get(&server, "k").status, 404);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(cluster.sql(open), "0");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn a_write_whose_row_changes_meanwhile_is_judged_by_what_comes_of_it() {
    let cluster = Cluster::start();
    let (_fixture, server) = serve_writes(&cluster, &["origin.timeout=30s"]);
    let if_old = format!("If-Match: {}\r\n", etag(&put(&server, "k", "", "old")));
    for (lines, key, statement, status) in [
        (&*if_old, "k", "UPDATE items SET value = 'other' WHERE key = 'k'", 412),
        ("If-None-Match: *\r\n", "new", "INSERT INTO items VALUES ('new', 'other')", 412),
        ("If-Match: *\r\n", "new", "UPDATE items SET value = 'x' WHERE key = 'new'", 204),
        ("If-Match: *\r\n", "k", "DELETE FROM items WHERE key = 'k'", 412),
    ] {
        let other = cluster.transaction(statement);
        let client = send(&server, "PUT", key, lines, "ours");
        cluster.wait_until(WAITING, "1");
        other.commit();
        assert_eq!(answer(client).status, status, "{statement}");
    }
    assert_eq!(rows(&cluster), "new|ours|text/plain");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn many_who_add_one_by_one_all_count() {
    let cluster = Cluster::start();
    let (_fixture, server) = serve_writes(&cluster, &[]);
    assert_eq!(put(&server, "n", "", "0").status, 201);
    let add = |client: &mut Client| loop {
        let seen = client.get("/lookup/n");
        let next = (seen.text().parse::<u32>().unwrap() + 1).to_string();
        let lines = format!("If-Match: {}\r\n", etag(&seen));
        client.send(request("PUT", "n", &lines, &next).as_bytes()).unwrap();
        match client.receive(false).unwrap().status {
            204 => break,
            status => assert_eq!(status, 412),
        }
    };
    let clients: Vec<_> = (0..4).map(|_| Client::new(server.connect())).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || (0..10).for_each(|_| add(&mut client)));
        }
    });
    assert_eq!(rows(&cluster), "n|40|text/plain");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn a_write_whose_session_is_ended_is_unknown_and_one_that_is_refused_is_not_done() {
    let cluster = Cluster::start();
    cluster.sql("ALTER TABLE items ADD CHECK (value <> 'bad')");
    let (_fixture, server) = serve_writes(&cluster, &["origin.timeout=30s"]);
    assert_eq!(put(&server, "k", "", "old").status, 201);
    assert_eq!(put(&server, "k", "", "bad").status, 502);
    assert_eq!(put(&server, "k", "If-Match: *\r\n", "bad").status, 502);
    assert_eq!((get(&server, "k").text(), &*rows(&cluster)), ("old", "k|old|text/plain"));
    let lock = cluster.transaction("SELECT FROM items FOR UPDATE");
    let client = send(&server, "PUT", "k", "", "lost");
    cluster.wait_until(WAITING, "1");
    cluster.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    );
    assert_eq!(answer(client).status, 504);
    drop(lock);
    // The connection is made anew, and none of them is left in a transaction.
    assert_eq!(put(&server, "k", "If-Match: *\r\n", "new").status, 204);
    assert_eq!(rows(&cluster), "k|new|text/plain");
}

#[test]
#[ignore = "needs PostgreSQL: make test-peers"]
fn a_write_that_waits_too_long_is_given_up_by_the_server_too() {
    let cluster = Cluster::start();
    let (_fixture, server) = serve_writes(&cluster, &["origin.timeout=500ms"]);
    assert_eq!(put(&server, "k", "", "old").status, 201);
    let lock = cluster.transaction("SELECT FROM items FOR UPDATE");
    let status = put(&server, "k", "", "late").status;
    assert!([502, 504].contains(&status), "{status}");
    cluster.wait_until(WAITING, "0");
    drop(lock);
    assert_eq!(rows(&cluster), "k|old|text/plain");
    until("a write is done", || put(&server, "k", "", "new").status == 204);
    assert_eq!(get(&server, "k").text(), "new");
}
