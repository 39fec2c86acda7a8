//! What the simulated origin does with a write: as the embedded store, on a map.

use super::stage::Source;
use pelton::error::FetchFailure;
use pelton::mesh::{Change, ContentType, Stored, Upload, Written};
use shard_cache::hash::Etag;
use std::collections::BTreeMap;

/// What whoever writes in a script bears.
pub(super) const TOKEN: &str = "0123456789abcdef";

/// The type of `value`, which says whether it is JSON where it is to be.
pub(super) fn content_type(named: ContentType, value: &[u8]) -> ContentType {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok();
    if named.names_json() && is_json { named.checked_json() } else { named }
}

/// Does what `upload` says, and tells what became of it.
pub(super) fn write(sources: &mut BTreeMap<Vec<u8>, Source>, upload: &Upload) -> Written {
    let key = upload.key().as_bytes();
    let current = match sources.get(key) {
        Some(Source::Failing) => return Written::Failed(FetchFailure::Unavailable),
        Some(Source::Late) => return Written::Unknown,
        Some(Source::Has(value) | Source::Keeps(value)) => {
            Some(Etag::of(ContentType::JSON.as_str(), value))
        }
        Some(Source::Absent) | None => None,
    };
    if !upload.precondition.holds(current) {
        return Written::PreconditionFailed;
    }
    match upload.change {
        Change::Put { content_type, lifetime, stale } => {
            let etag = Etag::of(content_type.as_str(), upload.body());
            let content_type = self::content_type(content_type, upload.body());
            sources.insert(key.to_vec(), Source::Has(upload.body().to_vec()));
            let is_new = current.is_none();
            Written::Stored(Stored { content_type, etag, is_new, lifetime, stale })
        }
        Change::Delete if current.is_none() => Written::Absent,
        Change::Delete => {
            sources.insert(key.to_vec(), Source::Absent);
            Written::Deleted
        }
    }
}
