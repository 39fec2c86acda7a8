//! Heads as they are written, byte by byte.

use super::{
    Beyond, CONTENT_TYPE_SIZE_MAX, Connection, Etag, FetchFailure, HeadPolicy, REPLY_HEAD_SIZE_MAX,
    Refusal, Replies, Served, Source, Term, WallSeconds,
};

const POLICY: HeadPolicy = HeadPolicy {
    cache_control: true,
    cache_status: true,
    max_age_s: 60,
    stale_while_revalidate_s: 30,
    shard: None,
};
const ETAG: Etag = Etag::from_bits(0x00c0_ffee_00c0_ffee);
const CONNECTIONS: [Connection; 3] =
    [Connection::Persistent, Connection::KeepAlive, Connection::Close];
const SOURCES: [Source; 4] =
    [Source::Hit, Source::Fetched, Source::Collapsed, Source::Kept(FetchFailure::Unavailable)];

fn replies(policy: HeadPolicy) -> Replies {
    Replies::new(policy, WallSeconds(784_111_777))
}

/// What `write` writes, which must not reach beyond the size it answers.
fn text(write: impl FnOnce(&mut [u8]) -> usize) -> String {
    let mut out = [b'?'; REPLY_HEAD_SIZE_MAX + 64];
    let size = write(&mut out);
    assert!(out[size..].iter().all(|&byte| byte == b'?'), "nothing behind the reply");
    String::from_utf8(out[..size].to_vec()).expect("ASCII")
}

fn served(term: Term, source: Source) -> Served {
    Served { etag: ETAG, term, beyond: Beyond::AS_CONFIGURED, source }
}

fn ends(lifetime_s: u32, age_s: u32) -> Term {
    Term::Ends { lifetime_s, age_s }
}

fn found(policy: HeadPolicy, term: Term, source: Source, connection: Connection) -> String {
    let replies = replies(policy);
    let template = replies.template(b"text/plain");
    text(|out| replies.found(out, &template, &served(term, source), 153, connection))
}

#[test]
fn a_hit_of_an_entry_that_never_expires_is_as_new() {
    assert_eq!(
        found(POLICY, Term::Ever, Source::Hit, Connection::Persistent),
        "HTTP/1.1 200 OK\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: text/plain\r\n\
         ETag: \"00c0ffee00c0ffee\"\r\n\
         Cache-Status: pelton; hit; ttl=60\r\n\
         Cache-Control: max-age=60, stale-while-revalidate=30\r\n\
         Age: 0\r\n\
         Content-Length: 153\r\n\r\n"
    );
}

#[test]
fn what_is_left_is_max_age_less_age() {
    for (term, lines) in [
        (ends(60, 0), ["hit; ttl=60", "max-age=60,", "Age: 0\r"]),
        (ends(60, 12), ["hit; ttl=48", "max-age=60,", "Age: 12\r"]),
        (ends(60, 60), ["hit; ttl=0", "max-age=60,", "Age: 60\r"]),
        (ends(60, 63), ["hit; ttl=-3", "max-age=60,", "Age: 63\r"]),
    ] {
        let head = found(POLICY, term, Source::Hit, Connection::Persistent);
        assert!(lines.iter().all(|line| head.contains(line)), "{head}");
    }
}

#[test]
fn a_value_is_sent_with_its_own_words_where_it_has_some() {
    let replies = replies(POLICY);
    let template = replies.template(b"text/plain");
    for (beyond, words) in [
        (Beyond::AS_CONFIGURED, "60, stale-while-revalidate=30"),
        (Beyond(7), "60, stale-while-revalidate=7"),
        (Beyond(0), "60"),
        (Beyond::NEVER, "60, must-revalidate"),
    ] {
        for term in [Term::Ever, ends(60, 0)] {
            let served = Served { beyond, ..served(term, Source::Hit) };
            let [connection, ..] = CONNECTIONS;
            let found = text(|out| replies.found(out, &template, &served, 153, connection));
            let unchanged = text(|out| replies.not_modified(out, &served, connection));
            for head in [found, unchanged] {
                let line = format!("\r\nCache-Control: max-age={words}\r\n");
                assert!(head.contains(&line), "{head}");
            }
        }
    }
}

#[test]
fn the_source_and_the_connection_are_named() {
    let fetched = found(POLICY, ends(60, 0), Source::Fetched, Connection::Close);
    assert!(fetched.contains("\r\nCache-Status: pelton; fwd=miss; stored; ttl=60\r\n"));
    assert!(fetched.contains("\r\nConnection: close\r\n"));
    let collapsed = found(POLICY, Term::Ever, Source::Collapsed, Connection::KeepAlive);
    assert!(collapsed.contains("\r\nCache-Status: pelton; fwd=miss; collapsed; ttl=60\r\n"));
    assert!(collapsed.contains("\r\nConnection: keep-alive\r\n"));
}

#[test]
fn what_was_kept_for_errors_is_served_with_the_error() {
    for (failure, status) in [
        (FetchFailure::Timeout, "fwd=stale; fwd-status=504; ttl=-3"),
        (FetchFailure::Unavailable, "fwd=stale; fwd-status=502; ttl=-3"),
        (FetchFailure::TooLarge, "fwd=stale; ttl=-3; detail=too_large"),
        (FetchFailure::NoRoom, "fwd=stale; ttl=-3; detail=no_room"),
    ] {
        let source = Source::Kept(failure);
        let head = found(POLICY, ends(60, 63), source, Connection::Persistent);
        assert!(head.contains(&format!("\r\nCache-Status: pelton; {status}\r\n")), "{head}");
    }
}

#[test]
fn the_template_is_what_would_be_written_line_by_line() {
    let at_once = found(POLICY, Term::Ever, Source::Hit, Connection::Persistent);
    let by_line = found(POLICY, ends(60, 0), Source::Hit, Connection::Persistent);
    assert_eq!(at_once, by_line);
}

#[test]
fn the_policy_leaves_lines_out() {
    for term in [Term::Ever, ends(9, 1)] {
        let policy = HeadPolicy { cache_control: false, ..POLICY };
        let head = found(policy, term, Source::Hit, Connection::Persistent);
        assert!(!head.contains("Cache-Control") && head.contains("\r\nAge: "), "{head}");
        let policy = HeadPolicy { cache_status: false, ..POLICY };
        let head = found(policy, term, Source::Hit, Connection::Persistent);
        assert!(!head.contains("Cache-Status"), "{head}");
        let policy = HeadPolicy { stale_while_revalidate_s: 0, ..POLICY };
        let head = found(policy, term, Source::Hit, Connection::Persistent);
        assert!(!head.contains("stale-while") && head.contains("max-age="), "{head}");
    }
}

#[test]
fn every_reply_names_its_shard_where_that_is_wanted() {
    let policy = HeadPolicy { shard: Some((3, 16)), ..POLICY };
    let replies = replies(policy);
    let served = served(Term::Ever, Source::Hit);
    let [persistent, ..] = CONNECTIONS;
    for head in [
        found(policy, Term::Ever, Source::Hit, persistent),
        found(policy, ends(9, 1), Source::Fetched, Connection::Close),
        text(|out| replies.not_modified(out, &served, persistent)),
        text(|out| replies.absent(out, Term::Ever, Source::Hit, false, persistent)),
        text(|out| replies.refused(out, Refusal::Overloaded, false, persistent)),
        text(|out| replies.health(out, false, persistent)),
    ] {
        assert!(head.contains(" GMT\r\nShard: 3/16\r\n"), "{head}");
    }
}

#[test]
fn not_modified_has_no_body_and_no_length() {
    let replies = replies(POLICY);
    let connection = Connection::Persistent;
    assert_eq!(
        text(|out| replies.not_modified(out, &served(ends(9, 1), Source::Hit), connection)),
        "HTTP/1.1 304 Not Modified\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         ETag: \"00c0ffee00c0ffee\"\r\n\
         Cache-Status: pelton; hit; ttl=8\r\n\
         Cache-Control: max-age=9, stale-while-revalidate=30\r\n\
         Age: 1\r\n\r\n"
    );
}

#[test]
fn an_absent_key_is_a_404_that_may_be_cached() {
    let replies = replies(POLICY);
    assert_eq!(
        text(|out| replies.absent(out, ends(2, 0), Source::Hit, false, Connection::Close)),
        "HTTP/1.1 404 Not Found\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Cache-Status: pelton; hit; ttl=2\r\n\
         Cache-Control: max-age=2\r\n\
         Age: 0\r\n\
         Content-Type: application/json\r\n\
         Connection: close\r\n\
         Content-Length: 21\r\n\r\n\
         {\"error\":\"not_found\"}"
    );
}

#[test]
fn every_refusal_is_framed_and_head_has_no_body() {
    let replies = replies(POLICY);
    for &refusal in Refusal::ALL {
        let [whole, head] = [false, true]
            .map(|head_only| text(|out| replies.refused(out, refusal, head_only, CONNECTIONS[0])));
        let (lines, body) = whole.split_once("\r\n\r\n").expect("a blank line");
        assert_eq!(head, format!("{lines}\r\n\r\n"));
        assert_eq!(body, refusal.body());
        assert!(lines.starts_with(&format!("HTTP/1.1 {}\r\nDate: ", refusal.status())));
        assert!(lines.ends_with(&format!("\r\nContent-Length: {}", body.len())));
        let needs = |status: &str, line: &str| {
            assert_eq!(refusal.status().starts_with(status), lines.contains(line), "{lines}");
        };
        needs("401", "\r\nWWW-Authenticate: Bearer\r\n");
        needs("405", "\r\nAllow: ");
        let may_retry = ["429", "503"].iter().any(|status| refusal.status().starts_with(status));
        assert_eq!(may_retry, lines.contains("\r\nRetry-After: 1\r\n"), "{lines}");
    }
    let health = text(|out| replies.health(out, false, CONNECTIONS[0]));
    assert!(health.starts_with("HTTP/1.1 200 OK\r\nDate: "));
    assert!(health.ends_with("\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"));
}

#[test]
fn a_write_is_answered_without_a_body_and_a_batch_without_a_length() {
    let replies = replies(POLICY);
    let [persistent, _, close] = CONNECTIONS;
    let created = text(|out| replies.stored(out, ETAG, true, persistent));
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"));
    assert!(created.ends_with("\r\nETag: \"00c0ffee00c0ffee\"\r\nContent-Length: 0\r\n\r\n"));
    for empty in [
        text(|out| replies.stored(out, ETAG, false, close)),
        text(|out| replies.deleted(out, close)),
    ] {
        assert!(empty.starts_with("HTTP/1.1 204 ") && !empty.contains("Content-Length"));
        assert!(empty.ends_with("\r\nConnection: close\r\n\r\n"), "{empty}");
    }
    assert_eq!(text(|out| replies.go_on(out)), "HTTP/1.1 100 Continue\r\n\r\n");
    let chunked = text(|out| replies.items(out, persistent, true));
    assert!(chunked.ends_with("no-store\r\nTransfer-Encoding: chunked\r\n\r\n"), "{chunked}");
    let old = text(|out| replies.items(out, close, false));
    assert!(old.ends_with("no-store\r\nConnection: close\r\n\r\n"), "{old}");
}

#[test]
fn the_date_of_a_reply_follows_the_clock() {
    let mut replies = replies(POLICY);
    let template = replies.template(b"a/b");
    replies.set_date(WallSeconds(0));
    let served = served(Term::Ever, Source::Hit);
    let head = text(|out| replies.found(out, &template, &served, 0, CONNECTIONS[0]));
    assert!(head.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
}

#[test]
fn no_reply_needs_more_room_than_the_bound_and_the_longest_needs_most_of_it() {
    let policy = HeadPolicy {
        max_age_s: u32::MAX,
        // The table of parameters allows a week.
        stale_while_revalidate_s: 7 * 24 * 3600,
        shard: Some((1023, 1024)),
        ..POLICY
    };
    let replies = replies(policy);
    let template = replies.template(&[b'x'; CONTENT_TYPE_SIZE_MAX]);
    let mut longest = 0;
    for connection in CONNECTIONS {
        for source in SOURCES {
            for term in [Term::Ever, ends(0, u32::MAX), ends(u32::MAX, u32::MAX)] {
                let served = served(term, source);
                let found =
                    text(|out| replies.found(out, &template, &served, u32::MAX, connection));
                let unchanged = text(|out| replies.not_modified(out, &served, connection));
                let absent = text(|out| replies.absent(out, term, source, false, connection));
                longest = longest.max(found.len()).max(unchanged.len()).max(absent.len());
            }
        }
        for &refusal in Refusal::ALL {
            let refused = text(|out| replies.refused(out, refusal, false, connection));
            longest = longest.max(refused.len());
        }
    }
    assert!(longest <= REPLY_HEAD_SIZE_MAX, "{longest}");
    assert!(longest > REPLY_HEAD_SIZE_MAX - 64, "{longest}");
}
