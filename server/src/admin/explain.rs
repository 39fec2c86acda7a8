//! `/explain?key=KEY`: why a key is served as it is. The shard that owns the key is asked, by way
//! of the origin plane.

use super::{Admin, key};
use crate::error::FetchFailure;
use crate::mesh::{
    EntryFacts, ExplainRequest, Explained, Explanation, FetchAnswer, FetchFacts, FlightFacts, Key,
    OriginServer, State, Taken, Why,
};
use axum::extract::{RawQuery, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use shard_cache::FreshFor;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the owner may take: four times its longest wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bits of the set of shards with copies.
const HOLDERS_MAX: u16 = 63;

/// What `/explain` answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExplainReport {
    /// The key: as text, or as it stands in a request's path.
    pub key: String,
    /// Which of both: `text`, or `percent` where it is not UTF-8.
    pub encoding: String,
    /// The shard that owns it.
    pub owner_shard: u16,
    /// What its entry may be used for.
    pub state: State,
    /// Its entry in the memory of its owner.
    pub entry: Option<EntryReport>,
    /// The fetch that is under way.
    pub fetch: Option<FlightReport>,
    /// The last fetch that is remembered.
    pub last_fetch: Option<FetchReport>,
    /// Writes, purges and changes of it that are under way or wait.
    pub changes: u32,
    /// A purge of many keys is under way.
    pub purge_of_many: bool,
    /// Shards that may have copies.
    pub copies: Vec<u16>,
    /// Who is asked for it.
    pub origin: OriginReport,
}

/// An entry. What is left is in seconds from now, below zero for what is over.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EntryReport {
    /// Since it was stored.
    pub age_seconds: f64,
    /// It is fresh; null if that never ends.
    pub fresh_seconds: Option<f64>,
    /// It is served while it is fetched anew.
    pub stale_while_revalidate_seconds: Option<f64>,
    /// It is served if that fails.
    pub stale_if_error_seconds: Option<f64>,
    /// Bytes of its value; null if it says that the origin does not have the key.
    pub size: Option<u32>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its tag, as a reply has it.
    pub etag: Option<String>,
}

/// A fetch that is under way.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FlightReport {
    /// Since the origin was asked.
    pub age_seconds: f64,
    /// Requests that wait for it.
    pub waiters: u32,
    /// The key has changed meanwhile: what it brings is not kept.
    pub void: bool,
}

/// A fetch that is remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FetchReport {
    /// Since the origin was asked.
    pub age_seconds: f64,
    /// Why it was asked.
    pub reason: Why,
    /// What it said: `pending`, `found`, `absent`, or how it failed.
    pub answer: String,
    /// How long it took to say it.
    pub took_seconds: f64,
    /// Whether that was kept.
    pub kept: bool,
    /// How long that is fresh; null if it was not kept, or is fresh for ever.
    pub fresh_seconds: Option<f64>,
    /// What has taken it away since.
    pub taken: Option<Taken>,
}

/// Who is asked for a key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OriginReport {
    /// What the origin is.
    pub name: String,
    /// The server that is asked, where there is one and it is known.
    pub server: Option<String>,
    /// Whether it is left alone: `closed` if not, `open` if it is, `half_open` if it is tried.
    pub breaker: Option<String>,
}

pub(super) async fn explain(
    Shared(admin): Shared<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Response {
    let key = match asked(query.as_deref().unwrap_or_default()) {
        Ok(key) => key,
        Err(wrong) => return (StatusCode::BAD_REQUEST, wrong + "\n").into_response(),
    };
    let (answer, answered) = oneshot::channel();
    let request = ExplainRequest { explanation: Box::new(Explanation::of(key)), answer };
    let told = async {
        admin.explanations.send(request).await.ok()?;
        answered.await.ok()
    };
    let Ok(Some(explained)) = tokio::time::timeout(PATIENCE, told).await else {
        let silent = "the shard that owns the key has not answered within 1 s; see /livez\n";
        return (StatusCode::SERVICE_UNAVAILABLE, silent).into_response();
    };
    let shards = u16::try_from(admin.boards.len()).expect("shards are counted in 16 bits");
    let report = report(&explained, shards, &admin.facts.origin);
    let text = serde_json::to_string_pretty(&report).expect("names and numbers");
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

/// The key that a query asks for.
fn asked(query: &str) -> Result<Key, String> {
    let mut asked = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name != "key" || asked.is_some() {
            return Err(format!("there is no further parameter {name:?}, only one \"key\""));
        }
        asked = Some(key::parse(value.as_bytes())?);
    }
    asked.ok_or_else(|| "say which: ?key=KEY, in which %XX stands for a byte".to_owned())
}

/// What is shown of an explanation by one of so many shards.
fn report(explained: &Explained, shards: u16, origin: &str) -> ExplainReport {
    let Explained { explanation, server } = explained;
    let (key, encoding) = key::shown(explanation.key.as_bytes(), false);
    let Explanation { owner, holders, .. } = **explanation;
    let is_holder = |shard: &u16| *shard != owner && holders >> (shard % HOLDERS_MAX) & 1 == 1;
    ExplainReport {
        key,
        encoding,
        owner_shard: owner,
        state: explanation.state,
        entry: explanation.entry.map(entry),
        fetch: explanation.flight.map(flight),
        last_fetch: explanation.fetch.map(fetch),
        changes: explanation.changes_count,
        purge_of_many: explanation.is_purging,
        copies: (0..shards).filter(is_holder).collect(),
        origin: OriginReport {
            name: origin.to_owned(),
            server: server.as_ref().map(|server| server.name.clone()),
            breaker: server.as_ref().map(|server| breaker(server).to_owned()),
        },
    }
}

fn entry(facts: EntryFacts) -> EntryReport {
    let EntryFacts { age_ms, left, value } = facts;
    EntryReport {
        age_seconds: seconds(age_ms),
        fresh_seconds: left.map(|left| match left.fresh_ms {
            over @ ..0 => -seconds(over.unsigned_abs()),
            fresh => seconds(fresh.unsigned_abs()),
        }),
        stale_while_revalidate_seconds: left.map(|left| seconds(left.while_revalidate_ms)),
        stale_if_error_seconds: left.map(|left| seconds(left.if_error_ms)),
        size: value.map(|value| value.size),
        content_type: value.map(|value| value.content_type.as_str().to_owned()),
        etag: value.map(|value| format!("\"{:016x}\"", value.etag.bits())),
    }
}

fn flight(facts: FlightFacts) -> FlightReport {
    let FlightFacts { age_ms, waiters_count, is_void } = facts;
    FlightReport { age_seconds: seconds(age_ms), waiters: waiters_count, void: is_void }
}

fn fetch(facts: FetchFacts) -> FetchReport {
    let answer = match facts.answer {
        FetchAnswer::Pending => "pending",
        FetchAnswer::Found => "found",
        FetchAnswer::Absent => "absent",
        FetchAnswer::Unchanged => "unchanged",
        FetchAnswer::Failed(FetchFailure::Timeout) => "timeout",
        FetchAnswer::Failed(FetchFailure::Unavailable) => "unavailable",
        FetchAnswer::Failed(FetchFailure::TooLarge) => "too_large",
        FetchAnswer::Failed(FetchFailure::NoRoom) => "no_room",
    };
    let fresh_ms = match facts.kept {
        Some(FreshFor::Ms(ms)) => Some(ms),
        Some(FreshFor::Ever) | None => None,
    };
    FetchReport {
        age_seconds: seconds(facts.age_ms),
        reason: facts.why,
        answer: answer.to_owned(),
        took_seconds: f64::from(facts.took_us) / 1e6,
        kept: facts.kept.is_some(),
        fresh_seconds: fresh_ms.map(|ms| seconds(ms.into())),
        taken: facts.taken,
    }
}

const fn breaker(server: &OriginServer) -> &'static str {
    match server.counters.breaker {
        0 => "closed",
        1 => "half_open",
        _ => "open",
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{ContentType, Left, ValueFacts};
    use crate::metrics::ServerCounters;
    use serde_json::json;
    use shard_cache::hash::Etag;

    fn explained(explanation: Explanation) -> Explained {
        let counters = ServerCounters { breaker: 2, ..ServerCounters::default() };
        let server = OriginServer { name: "a:1".to_owned(), counters };
        Explained { explanation: Box::new(explanation), server: Some(server) }
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes).unwrap()
    }

    #[test]
    fn a_query_names_one_key_of_any_bytes() {
        for (query, wanted) in
            [("key=a", &b"a"[..]), ("&key=%00%FF&", b"\x00\xff"), ("key=a%26b=c", b"a&b=c")]
        {
            assert_eq!(asked(query), Ok(key(wanted)), "{query}");
        }
        for (query, why) in [
            ("", "say which"),
            ("key", "empty"),
            ("key=", "empty"),
            ("key=%f", "two hex digits"),
            ("key=a&key=b", "only one"),
            ("name=a", "\"name\""),
        ] {
            assert!(asked(query).unwrap_err().contains(why), "{query}");
        }
    }

    #[test]
    fn an_entry_is_shown_with_what_is_left_of_it_and_who_has_copies() {
        let left = Left { fresh_ms: -1_500, while_revalidate_ms: 500, if_error_ms: 8_500 };
        let etag = Etag::from_bits(0x00c0_ffee_00c0_ffee);
        let value = ValueFacts { size: 7, content_type: ContentType::JSON, etag };
        let explanation = Explanation {
            owner: 1,
            state: State::Stale,
            entry: Some(EntryFacts { age_ms: 61_500, left: Some(left), value: Some(value) }),
            flight: Some(FlightFacts { age_ms: 20, waiters_count: 3, is_void: true }),
            holders: 0b1011,
            ..Explanation::of(key(b"k\xff"))
        };
        let report = report(&explained(explanation), 65, "a test");
        let shown = serde_json::to_value(&report).unwrap();
        assert_eq!((&shown["key"], &shown["encoding"]), (&json!("k%FF"), &json!("percent")));
        assert_eq!((&shown["state"], &shown["owner_shard"]), (&json!("stale"), &json!(1)));
        assert_eq!(
            shown["entry"],
            json!({
                "age_seconds": 61.5,
                "fresh_seconds": -1.5,
                "stale_while_revalidate_seconds": 0.5,
                "stale_if_error_seconds": 8.5,
                "size": 7,
                "content_type": "application/json",
                "etag": "\"00c0ffee00c0ffee\"",
            })
        );
        assert_eq!(shown["fetch"], json!({ "age_seconds": 0.02, "waiters": 3, "void": true }));
        // Shards 63 and 64 share the bits of 0 and 1.
        assert_eq!(report.copies, [0, 3, 63, 64]);
        let origin = json!({ "name": "a test", "server": "a:1", "breaker": "open" });
        assert_eq!(shown["origin"], origin);
    }

    #[test]
    fn a_fetch_is_shown_with_its_reason_and_what_became_of_it() {
        let facts = FetchFacts {
            age_ms: 1_000,
            why: Why::NotKept,
            answer: FetchAnswer::Failed(FetchFailure::Timeout),
            took_us: 250,
            kept: None,
            taken: Some(Taken::Purged),
        };
        let shown = serde_json::to_value(fetch(facts)).unwrap();
        assert_eq!(
            shown,
            json!({
                "age_seconds": 1.0,
                "reason": "not_kept",
                "answer": "timeout",
                "took_seconds": 0.000_25,
                "kept": false,
                "fresh_seconds": null,
                "taken": "purged",
            })
        );
        let kept = Some(FreshFor::Ms(2_000));
        let found = FetchFacts { answer: FetchAnswer::Found, kept, taken: None, ..facts };
        assert_eq!(fetch(found).fresh_seconds, Some(2.0));
    }
}
