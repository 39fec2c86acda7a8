//! Request smuggling: every payload of `tests/smuggling/payloads.txt` is refused and the connection
//! ended, or read as exactly the requests that its row says, however its bytes arrive.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton::http::{
    BatchLimits, Connection, Exchange, HttpLimits, KEY_SIZE_MAX, RawKey, Route, Step,
};
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::Process;
use pelton_tests::smuggling::{Payload, corpus};
use std::io::ErrorKind;
use std::net::Shutdown;

/// The server's defaults.
const LIMITS: HttpLimits = HttpLimits {
    head_size_max: 8_192,
    headers_count_max: 64,
    target_size_max: 8_192,
    key_size_max: 512,
    body_size_max: 1 << 20,
    batch: BatchLimits { keys_max: 4, body_size_max: 64 },
    writes: None,
};

fn is_hidden(key: RawKey<'_>) -> bool {
    let mut room = [0; KEY_SIZE_MAX];
    let size = key.copy_to(&mut room);
    &room[..size] == b"k1"
}

/// What the parts are answered, received one after the other.
fn answers(parts: [&[u8]; 2]) -> String {
    let (mut exchange, mut held, mut answers) = (Exchange::new(), Vec::new(), Vec::new());
    for part in parts {
        held.extend_from_slice(part);
        loop {
            let (consumed, is_last) = match exchange.next(&held, &LIMITS) {
                Step::Partial { consumed } => {
                    held.drain(..consumed);
                    break;
                }
                Step::Write { .. } | Step::Batch { .. } | Step::Body { .. } => {
                    unreachable!("nobody may write")
                }
                Step::Refused(refusal) => {
                    answers.push(refusal.status()[..3].to_owned());
                    (0, true)
                }
                Step::Request { request, consumed } => {
                    answers.push(match request.route {
                        Route::Lookup { key } if is_hidden(key) => "hidden".to_owned(),
                        Route::Lookup { .. } | Route::Health => "200".to_owned(),
                        Route::Refused(refusal) => refusal.status()[..3].to_owned(),
                        Route::Write | Route::Batch => unreachable!("nobody may"),
                    });
                    (consumed, request.connection(false) == Connection::Close)
                }
            };
            if is_last {
                answers.push("close".to_owned());
                return answers.join(" ");
            }
            held.drain(..consumed);
        }
    }
    answers.join(" ")
}

/// What the server answers. Where the row ends in `close` it has to end the connection by itself;
/// otherwise the client ends its side first.
fn served(server: &Process, payload: &Payload) -> String {
    let mut client = Client::new(server.connect());
    client.send(&payload.bytes).unwrap();
    if !payload.answers.ends_with("close") {
        client.socket().shutdown(Shutdown::Write).unwrap();
    }
    let mut answers = Vec::new();
    loop {
        match client.receive(false) {
            Ok(reply) => {
                let is_hidden = reply.status == 200 && reply.text() == value(1);
                answers.push(if is_hidden { "hidden".into() } else { reply.status.to_string() });
                if reply.header("Connection") == Some("close") {
                    answers.push("close".into());
                }
            }
            Err(error) => {
                let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(ends.contains(&error.kind()), "{}: {error}", payload.name);
                return answers.join(" ");
            }
        }
    }
}

#[test]
fn every_payload_is_refused_or_read_as_its_row_says_wherever_it_is_split() {
    let mut wrong = Vec::new();
    let corpus = corpus();
    assert!(corpus.len() >= 150);
    for payload in &corpus {
        for at in 0..=payload.bytes.len() {
            let (head, tail) = payload.bytes.split_at(at);
            let answers = answers([head, tail]);
            if answers != payload.answers {
                wrong.push(format!("{} = {answers}", payload.name));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "read otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn the_server_answers_every_payload_as_its_row_says_and_no_hidden_request_otherwise() {
    let fixture = Fixture::numbered(2);
    let server = Process::start(&fixture.store(), &[]);
    for payload in corpus() {
        assert_eq!(served(&server, &payload), payload.answers, "{}", payload.name);
    }
    assert_eq!(Client::new(server.connect()).get("/lookup/k0").text(), value(0));
}

/// Rows of legal requests that only look odd are for the other classes.
#[test]
fn both_framings_at_once_are_always_refused() {
    for Payload { class, name, answers, .. } in corpus() {
        if ["CL.TE", "TE.CL"].contains(&class.as_str()) {
            assert_eq!(answers, "400 close", "{name}");
        }
    }
}
