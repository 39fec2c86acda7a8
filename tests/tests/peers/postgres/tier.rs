//! Redis in front of PostgreSQL.

use super::cluster::Cluster;
use super::get;
use super::writes::{TOKEN, delete, put, serve_writes};
use crate::redis_server::RedisServer;
use pelton_tests::process::{Process, until};

fn forget(server: &Process, key: &str) {
    assert_eq!(server.purge(TOKEN, &format!(r#"{{"key":"{key}"}}"#)).0, 200);
}

/// What is read where nothing is cached.
fn read(server: &Process, key: &str) -> (u16, String) {
    forget(server, key);
    let reply = get(server, key);
    (reply.status, reply.text().to_owned())
}

#[test]
#[ignore = "needs PostgreSQL and redis-server: make test-peers"]
fn what_is_read_and_written_is_in_both_and_either_may_be_down() {
    let mut cluster = Cluster::start();
    let mut redis = RedisServer::start(&[]);
    let urls = format!("redis.urls=redis://127.0.0.1:{}", redis.port);
    let sets = ["origin.kind=tier", &urls, "redis.content_type=text/plain", "cache.ttl=1h"];
    let (_fixture, server) = serve_writes(&cluster, &sets);
    cluster.sql("INSERT INTO items VALUES ('old', 'from the database', 'text/plain')");
    until("it is connected", || read(&server, "old") == (200, "from the database".to_owned()));
    until("it is put into Redis", || {
        read(&server, "old");
        redis.cli(&["GET", "old"]) == "from the database"
    });
    let ttl: u32 = redis.cli(&["TTL", "old"]).parse().unwrap();
    assert!((1..=3600).contains(&ttl), "{ttl}");

    assert_eq!(put(&server, "new", "", "1").status, 201);
    assert_eq!(redis.cli(&["GET", "new"]), "1");
    let in_database = "SELECT convert_from(value, 'UTF8') FROM items WHERE key = 'new'";
    assert_eq!(cluster.sql(in_database), "1");
    assert_eq!(delete(&server, "old", ""), 204);
    assert_eq!((redis.cli(&["EXISTS", "old"]), read(&server, "old").0), ("0".to_owned(), 404));

    cluster.stop();
    assert_eq!(read(&server, "new"), (200, "1".to_owned()), "Redis has it");
    cluster.run();
    until("the database is asked again", || read(&server, "old").0 == 404);
    redis.kill();
    until("it is written", || put(&server, "new", "", "2").status == 204);
    assert_eq!(read(&server, "new"), (200, "2".to_owned()), "the database has it");
    redis.restart();
    redis.cli(&["SET", "new", "1"]);
    until("Redis is asked again", || {
        assert_eq!(read(&server, "new"), (200, "2".to_owned()), "Redis has missed the write");
        redis.cli(&["GET", "new"]) == "2"
    });
}
