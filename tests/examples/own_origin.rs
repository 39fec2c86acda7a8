//! The server with an origin of its own, which knows squares.
//!
//! ```text
//! cargo run -p pelton-tests --example own_origin -- cache.memory=64MiB
//! curl -i localhost:8080/lookup/12
//! ```

use pelton::config::Config;
use pelton::mesh::{ContentType, Found, Held, Lifetime, Outcome, Stale};
use pelton::origin::{Fetch, Origin};
use pelton::server::Server;
use shard_cache::hash::Etag;
use std::error::Error;
use std::pin::Pin;

struct Squares;

impl Origin for Squares {
    fn describe(&self) -> String {
        "squares".to_owned()
    }

    fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
        Box::pin(async move {
            let number = std::str::from_utf8(key).ok().and_then(|text| text.parse::<u64>().ok());
            let Some(square) = number.and_then(|number| number.checked_mul(number)) else {
                return Outcome::Absent;
            };
            let value: Box<[u8]> = square.to_string().into_bytes().into();
            let content_type = ContentType::JSON;
            let etag = Etag::of(content_type.as_str(), &value);
            let (lifetime, stale, held) = (Lifetime::Default, Stale::default(), Held::default());
            Outcome::Found(Found { value, content_type, etag, lifetime, stale, held })
        })
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async { true })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let sets: Vec<String> = std::env::args().skip(1).collect();
    let config = Config::load(None, &sets)?;
    let server = Server::start(&config, Box::new(|_limits| Ok(Box::new(Squares))))?;
    server.join();
    Ok(())
}
