//! PostgreSQL as the origin, without one: what is refused, and what holds while it is down. What
//! needs a real one is under `peers`.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process, free_ports};

#[test]
fn a_server_that_is_not_there_costs_its_keys_alone() {
    let fixture = Fixture::empty();
    let secret = fixture.path("password");
    std::fs::write(&secret, "a secret\n").expect("the folder is writable");
    let url = format!("postgres.urls=postgres://me@127.0.0.1:{}/db", free_ports(1));
    let file = format!("postgres.password_file={}", secret.display());
    let server = Process::start(&fixture.store(), &["origin.kind=postgres", &*url, &file]);
    for number in 0..30 {
        let reply = Client::new(server.connect()).get(&format!("/lookup/{number}"));
        assert_eq!((reply.status, reply.text()), (502, r#"{"error":"origin_unavailable"}"#));
    }
    assert_eq!(server.admin("/readyz").0, 200);
    let shown = server.admin("/config").1 + &server.admin("/stats").1;
    assert!(shown.contains("postgres://me@127.0.0.1") && !shown.contains("a secret"), "{shown}");
}

#[test]
fn what_it_cannot_be_is_refused_with_what_to_do() {
    for (sets, what) in [
        (&["postgres.urls=postgres://me:word@host/db"][..], "postgres.password_file"),
        (&[r#"postgres.urls=["postgres://me@a/db", "http://b"]"#], "postgres.urls[1]"),
        (&["postgres.password_file=/dev/null"], "its first line is empty"),
        (&["http.writes=true"], "postgres.put is off"),
        (&["http.writes=true", "postgres.put=INSERT"], "postgres.delete is off"),
        (
            &["http.writes=true", "postgres.put=a", "postgres.delete=b", "snapshot.path=/tmp/none"],
            "snapshot.path to off",
        ),
    ] {
        let fixture = Fixture::empty();
        let token = fixture.token_file("a-token-of-16-bytes");
        let listen = r#"server.listen=["127.0.0.1:0"]"#;
        let own = ["admin.listen=127.0.0.1:0", "origin.kind=postgres", &token, listen];
        let all = own.iter().chain(sets).flat_map(|set| ["--set", *set]);
        let output = process::run(&std::iter::once("serve").chain(all).collect::<Vec<_>>());
        let message = String::from_utf8(output.stderr).expect("it writes text");
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(what) && !message.contains("word@"), "{message}");
    }
}
