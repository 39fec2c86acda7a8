//! An HTTP server as the origin: a GET for each fetch, over connections that are kept.
//!
//! One request is on a connection at a time, so the guard's bound on requests is one on connections
//! too. A value's room is held before its body is read: what the head says of its size, or else the
//! largest value there may be. A value that is in memory is asked for unless it is still the one,
//! where the server has said by what it knows that.

mod freshness;
mod url;
mod validators;

use super::guard::{Guard, Trouble};
use super::store::checked;
use super::{Fetch, Origin, Room, tls};
use crate::config::Config;
use crate::error::{FetchFailure, StartError};
use crate::limits::ORIGIN_CONNECTION_SIZE;
use crate::mesh::{ContentType, Found, OriginServer, Outcome, Unchanged};
use bytes::Bytes;
use freshness::Words;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use shard_cache::hash::Etag;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use url::Url;
use validators::{Known, Validator, Validators};

/// What we call ourselves.
const NAME: &str = concat!("pelton/", env!("CARGO_PKG_VERSION"));

/// How long a connection is kept that nothing is sent on: servers close theirs after 60 s and more.
const IDLE: Duration = Duration::from_secs(30);

/// An answer without a value is read up to this many bytes, so that its connection can be kept.
const REST_SIZE_MAX: usize = 64 << 10;

/// An HTTP server.
#[derive(Debug)]
pub struct Upstream {
    url: Url,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    guard: Guard,
    room: Room,
    value_size_max: usize,
    validators: Validators,
}

impl Upstream {
    /// The server that a configuration tells of. Nothing is sent yet.
    ///
    /// # Errors
    /// The URL is none, or there is no certificate to trust.
    pub fn new(config: &Config, room: Room) -> Result<Self, StartError> {
        let url = Url::parse(&config.upstream.url).map_err(|what| {
            StartError::failed(
                format!("upstream.url is {what}: {}", config.upstream.url),
                "Write it as http://HOST:PORT/PATH/{key}, or with https.",
            )
        })?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.origin.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(config.origin.tls_ca.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(ORIGIN_CONNECTION_SIZE as usize)
            .pool_max_idle_per_host(config.origin.requests_max as usize)
            .build(connector);
        let guard = Guard::new(url.address(), config.origin.requests_max, config.origin.queue_max);
        let value_size_max = usize::try_from(config.cache.value_size_max).expect("below 4 GiB");
        let validators = Validators::new(config.upstream.validators_max);
        Ok(Self { url, client, guard, room, value_size_max, validators })
    }

    async fn get(&self, key: &[u8], known: Option<&Known>) -> Result<Outcome, Trouble> {
        let mut request = Request::get(self.url.of(key))
            .header(USER_AGENT, NAME)
            .header(ACCEPT_ENCODING, "identity");
        if let Some(known) = known {
            let (name, text) = known.validator.condition();
            request = request.header(name, text);
        }
        let request = request.body(Empty::new());
        let request = request.map_err(|_| Trouble::Useless(FetchFailure::Unavailable))?;
        let response =
            self.client.request(request).await.map_err(|error| {
                if error.is_connect() { Trouble::Unsent } else { Trouble::Failed }
            })?;
        match response.status() {
            StatusCode::OK => self.value(key, response).await.map(Outcome::Found),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                read_rest(response).await;
                Ok(Outcome::Absent)
            }
            StatusCode::NOT_MODIFIED => self.unchanged(key, known, response.headers()),
            status => {
                read_rest(response).await;
                let is_ill = status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::REQUEST_TIMEOUT;
                Err(match is_ill {
                    true => Trouble::Failed,
                    false => Trouble::Useless(FetchFailure::Unavailable),
                })
            }
        }
    }

    /// What a 304 says of the value that was asked about: how long it is good from now on. One
    /// that nobody has asked for is a fault of the server.
    fn unchanged(
        &self,
        key: &[u8],
        known: Option<&Known>,
        headers: &HeaderMap,
    ) -> Result<Outcome, Trouble> {
        let Some(known) = known.filter(|known| known.validator.is_of(headers)) else {
            self.validators.forget(key);
            return Err(Trouble::Failed);
        };
        let words = Words::of(headers).or(known.words);
        let (lifetime, stale) = words.freshness(headers);
        self.remember(key, known.etag, Some(known.validator.clone()), words);
        Ok(Outcome::Unchanged(Unchanged { etag: known.etag, lifetime, stale }))
    }

    /// Remembers by what the server knows a value again, where it has said that and may be.
    fn remember(&self, key: &[u8], etag: Etag, validator: Option<Validator>, words: Words) {
        match validator.filter(|_| words.may_be_kept()) {
            Some(validator) => self.validators.put(key, Known { etag, validator, words }),
            None => self.validators.forget(key),
        }
    }

    /// The value of an answer that has one.
    async fn value(&self, key: &[u8], response: Response<Incoming>) -> Result<Found, Trouble> {
        const USELESS: Trouble = Trouble::Useless(FetchFailure::Unavailable);
        const TOO_LARGE: Trouble = Trouble::Useless(FetchFailure::TooLarge);
        let (head, body) = response.into_parts();
        let is_coded = head.headers.get(CONTENT_ENCODING).is_some_and(|name| name != "identity");
        let content_type = content_type(&head.headers).filter(|_| !is_coded).ok_or(USELESS)?;
        let size = body.size_hint().exact();
        let size = size.map_or(Some(self.value_size_max), |size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= self.value_size_max).ok_or(TOO_LARGE)?;
        let held = self.room.hold(size).await;
        let body = Limited::new(body, self.value_size_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { TOO_LARGE } else { Trouble::Failed }
        })?;
        let value: Box<[u8]> = Vec::from(body.to_bytes()).into();
        let etag = Etag::of(content_type.as_str(), &value);
        let content_type = checked(content_type, &value);
        let words = Words::of(&head.headers);
        let (lifetime, stale) = words.freshness(&head.headers);
        self.remember(key, etag, Validator::of(&head.headers), words);
        Ok(Found { value, content_type, etag, lifetime, stale, held })
    }
}

impl Origin for Upstream {
    fn describe(&self) -> String {
        format!("HTTP server {}", self.url.server())
    }

    fn fetch<'a>(&'a self, key: &'a [u8], known: Option<Etag>) -> Fetch<'a> {
        Box::pin(async move {
            let known = known.and_then(|etag| self.validators.get(key, etag));
            let outcome = self.guard.read(async || self.get(key, known.as_ref()).await).await;
            outcome.unwrap_or_else(Outcome::Failed)
        })
    }

    fn servers(&self) -> Vec<OriginServer> {
        vec![self.guard.report()]
    }

    fn server_of(&self, _key: &[u8]) -> Option<OriginServer> {
        Some(self.guard.report())
    }

    /// At once: what a snapshot has brought back is served while the server is down.
    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async { true })
    }
}

/// The type that the head names, or what a value is where it names none; `None` if it is no type
/// that a reply of ours can have.
fn content_type(headers: &HeaderMap) -> Option<ContentType> {
    match headers.get(CONTENT_TYPE) {
        Some(name) => ContentType::new(name.to_str().ok()?.trim_ascii()),
        None => Some(ContentType::BYTES),
    }
}

/// Reads what is left of a short answer, so that its connection serves the next request.
async fn read_rest(response: Response<Incoming>) {
    // A connection on which more is left is closed.
    drop(Limited::new(response.into_body(), REST_SIZE_MAX).collect().await);
}
