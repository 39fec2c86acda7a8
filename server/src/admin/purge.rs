//! `POST /purge`: drops what the caches hold of a key, a prefix, a group of keys, or of all, or
//! makes it stale; answered when it is in force in every shard. The origin is left alone.

use super::Admin;
use super::key::bounded;
use crate::mesh::{Named, PurgeOrder, PurgeRequest, Purged};
use crate::token::Token;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use shard_cache::Force;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long the shards may take. One that turns takes a turn; one that does not is ended after 2 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has the shards purge for whoever bears the token.
#[derive(Debug)]
pub struct Purger {
    /// To the origin plane.
    pub requests: mpsc::Sender<PurgeRequest>,
    /// Nobody may purge without one.
    pub token: Option<Token>,
}

/// What a request may say; exactly one of the first four.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    key: Option<String>,
    prefix: Option<String>,
    group: Option<String>,
    all: bool,
    soft: bool,
}

impl Body {
    /// What is to be purged.
    fn order(self) -> Result<PurgeOrder, String> {
        let Self { key, prefix, group, all, soft } = self;
        let named = match (key, prefix, group, all) {
            (Some(key), None, None, false) => Named::Key(bounded("key", key.as_bytes())?),
            (None, Some(prefix), None, false) => {
                Named::Prefix(bounded("prefix", prefix.as_bytes())?)
            }
            (None, None, Some(group), false) => Named::Group(bounded("group", group.as_bytes())?),
            (None, None, None, true) => Named::Everything,
            (None, None, None, false) => return Err("nothing is named".into()),
            _ => return Err("more than one thing is named".into()),
        };
        let force = if soft { Force::Soft } else { Force::Hard };
        Ok(PurgeOrder { named, force, outcome: Purged::Done })
    }
}

/// Purges what the body names.
pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refused) = refuse_stranger(&admin, &headers) {
        return refused;
    }
    let order = serde_json::from_slice(&body).map_err(|error| error.to_string());
    let order = match order.and_then(Body::order) {
        Ok(order) => order,
        Err(why) => {
            let hint = "send one of {\"key\":\"..\"}, {\"prefix\":\"..\"}, {\"group\":\"..\"}, \
                        {\"all\":true}, with \"soft\":true to make stale and not drop";
            return answer(StatusCode::BAD_REQUEST, &json!({ "error": why, "hint": hint }));
        }
    };
    let (answered, outcome) = oneshot::channel();
    let request = PurgeRequest { order, answer: answered };
    let done =
        async { admin.purger.requests.send(request).await.is_ok().then_some(outcome.await.ok())? };
    match tokio::time::timeout(PATIENCE, done).await {
        Ok(Some(outcome @ (Purged::Done | Purged::Found))) => {
            let shards = admin.boards.len();
            answer(StatusCode::OK, &json!({ "shards": shards, "found": outcome == Purged::Found }))
        }
        Ok(Some(Purged::Refused)) => unavailable(
            "a cache has no room for another rule",
            "purge a shorter prefix or all, or try again in some seconds",
        ),
        Ok(Some(Purged::NotNoted)) => unavailable(
            "the folder of snapshots cannot be written, and a snapshot could bring it back",
            "make room on the disk of snapshot.path, or remove the file `manifest` there",
        ),
        Ok(None) | Err(_) => unavailable(
            "not every shard has confirmed it",
            "try again: a purge does no harm twice; see /livez",
        ),
    }
}

/// Whether a request with these headers bears the token.
fn is_borne(token: &Token, headers: &HeaderMap) -> bool {
    headers.get(header::AUTHORIZATION).is_some_and(|value| token.is_in(value.as_bytes()))
}

/// The answer to whoever may not change anything.
fn refuse_stranger(admin: &Admin, headers: &HeaderMap) -> Option<Response> {
    match &admin.purger.token {
        None => {
            let body = json!({
                "error": "nobody may purge",
                "hint": "set admin.token_file to a file with a token, and restart",
            });
            Some(answer(StatusCode::FORBIDDEN, &body))
        }
        Some(token) if !is_borne(token, headers) => {
            let body = json!({
                "error": "the token is missing or wrong",
                "hint": "send Authorization: Bearer and what admin.token_file holds",
            });
            let mut refused = answer(StatusCode::UNAUTHORIZED, &body);
            refused.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer realm=\"pelton\""),
            );
            Some(refused)
        }
        Some(_) => None,
    }
}

fn unavailable(error: &str, hint: &str) -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error, "hint": hint }))
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, super::json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Key;

    fn order(text: &str) -> Result<PurgeOrder, String> {
        let body: Result<Body, _> = serde_json::from_str(text);
        body.map_err(|error| error.to_string()).and_then(Body::order)
    }

    #[test]
    fn exactly_one_thing_is_purged() {
        let key = |text: &str| Key::new(text.as_bytes()).expect("short");
        for (text, named, force) in [
            (r#"{"key":"user:1"}"#, Named::Key(key("user:1")), Force::Hard),
            (r#"{"prefix":"us","soft":true}"#, Named::Prefix(key("us")), Force::Soft),
            (r#"{"group":"user","soft":false}"#, Named::Group(key("user")), Force::Hard),
            (r#"{"all":true}"#, Named::Everything, Force::Hard),
        ] {
            let order = order(text).expect("a purge");
            assert_eq!((order.named, order.force), (named, force), "{text}");
        }
        for (text, why) in [
            ("{}", "nothing"),
            (r#"{"all":false}"#, "nothing"),
            (r#"{"key":"a","prefix":"b"}"#, "more than one"),
            (r#"{"key":"a","all":true}"#, "more than one"),
            (r#"{"key":""}"#, "empty"),
            (r#"{"keys":["a"]}"#, "unknown field"),
            (r#"{"key":7}"#, "invalid type"),
            ("", "EOF"),
        ] {
            let error = order(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(513));
        assert!(order(&long).expect_err("long").contains("513 bytes"));
    }
}
