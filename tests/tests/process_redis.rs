//! Redis as the origin, without one: what is refused, and what holds while it is down. What needs a
//! real one is under `peers`.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process, free_ports, until};

#[test]
fn a_server_that_is_not_there_fails_its_keys_and_no_more() {
    let fixture = Fixture::empty();
    let port = free_ports(1);
    let urls = format!("redis.urls=redis://me@127.0.0.1:{port}");
    let secret = fixture.path("password");
    std::fs::write(&secret, "the secret\n").expect("the folder is writable");
    let file = format!("redis.password_file={}", secret.display());
    let server = Process::start(&fixture.store(), &["origin.kind=redis", &urls, &file]);
    for number in 0..30 {
        let reply = Client::new(server.connect()).get(&format!("/lookup/{number}"));
        assert_eq!((reply.status, reply.text()), (502, r#"{"error":"origin_unavailable"}"#));
    }
    assert_eq!(server.admin("/readyz").0, 200);
    let name = format!("server=\"127.0.0.1:{port}\"");
    until("it is left alone", || server.metric("pelton_origin_server_breaker_state", &name) > 0);
    let shown = server.admin("/config").1 + &server.admin("/stats").1;
    assert!(shown.contains(&port.to_string()) && !shown.contains("the secret"), "{shown}");
}

#[test]
fn what_it_cannot_be_is_refused_with_what_to_do() {
    for (sets, what) in [
        (&["redis.urls=http://host"][..], "redis://HOST:PORT/DATABASE"),
        (&["redis.urls=redis://me:word@host"], "redis.password_file"),
        (&["redis.password_file=/dev/null"], "its first line is empty"),
        (&["redis.key=user"], "user:{key}"),
        (&["redis.content_type=t\u{e9}xt"], "application/json"),
        (&[r#"redis.urls=["redis://a", "redis://b"]"#], "redis.cluster or redis.replicas"),
        (&["http.writes=true", "snapshot.path=/tmp/none"], "snapshot.path to off"),
        (&["origin.kind=tier", r#"tier.of=["redis", "redis"]"#], "names redis twice"),
        (&["origin.kind=tier", r#"tier.of=["http", "redis"]"#], "http can be the last alone"),
        (&["origin.kind=tier", r#"tier.of=["redis", "file"]"#], "no kind of origin: file"),
        (&["origin.kind=tier", r#"tier.of=["postgres", "redis"]"#], "postgres.put and delete"),
    ] {
        let fixture = Fixture::empty();
        let token = fixture.token_file("a-token-of-16-bytes");
        let path = format!("origin.path={}", fixture.store().display());
        let own = ["server.listen=127.0.0.1:0", "admin.listen=off", "cache.memory=64MiB"];
        let mut arguments = vec!["serve"];
        for set in own.iter().chain(&["origin.kind=redis", &*path, &token]).chain(sets) {
            arguments.extend(["--set", set]);
        }
        let output = process::run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(what), "{sets:?}: {said}");
    }
}
