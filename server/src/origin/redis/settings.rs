//! What a configuration says of Redis.

use super::key::Names;
use crate::config::Config;
use crate::error::StartError;
use crate::mesh::ContentType;
use crate::origin::secret::password;
use redis::{Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, TlsCertificates};

/// What keys are called.
pub(super) fn names(config: &Config) -> Result<Names, StartError> {
    Names::parse(&config.redis.key).ok_or_else(|| {
        StartError::failed(
            format!("redis.key has not just one {{key}} in it: {}", config.redis.key),
            "Write it as user:{key}, or as {key} where keys are called the same in Redis.",
        )
    })
}

/// What values are.
pub(super) fn content_type(config: &Config) -> Result<ContentType, StartError> {
    ContentType::new(&config.redis.content_type).ok_or_else(|| {
        StartError::failed(
            format!("redis.content_type is no content type: {}", config.redis.content_type),
            "Write one of at most 63 characters, such as application/json.",
        )
    })
}

/// How each server is connected to, in the order of `redis.urls`.
pub(super) fn servers(config: &Config) -> Result<Vec<ConnectionInfo>, StartError> {
    let password = password("redis.password_file", config.redis.password_file.as_deref())?;
    config.redis.urls.iter().map(|url| server(url, password.as_deref(), config)).collect()
}

fn server(
    url: &str,
    password: Option<&str>,
    config: &Config,
) -> Result<ConnectionInfo, StartError> {
    let info = url.into_connection_info().map_err(|error| {
        StartError::failed(
            format!("redis.urls has what is no URL of a Redis server: {error}."),
            "Write it as redis://HOST:PORT/DATABASE, or with rediss for TLS.",
        )
    })?;
    let mut redis = info.redis_settings().clone();
    if redis.password().is_some() {
        return Err(StartError::failed(
            "redis.urls has a password in it, and the configuration is shown.",
            "Write it into a file of its own, and the file's path into redis.password_file.",
        ));
    }
    if let Some(password) = password {
        redis = redis.set_password(password);
    }
    // Only this protocol tells of changed keys on the connection that asks for values.
    if config.redis.tracking {
        redis = redis.set_protocol(ProtocolVersion::RESP3);
    }
    Ok(info.set_redis_settings(redis))
}

/// A client of a server, which trusts whom the configuration says.
pub(super) fn client(info: ConnectionInfo, config: &Config) -> Result<Client, StartError> {
    let name = info.addr().to_string();
    let cannot = |error: String| {
        StartError::failed(
            format!("There can be no client of the Redis server {name}: {error}."),
            "Look at redis.urls, and at the certificates of origin.tls_ca.",
        )
    };
    let Some(path) = &config.origin.tls_ca else {
        return Client::open(info).map_err(|error| cannot(error.to_string()));
    };
    let authorities = std::fs::read(path)
        .map_err(|error| cannot(format!("{} cannot be read: {error}", path.display())))?;
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
    Client::build_with_tls(info, certificates).map_err(|error| cannot(error.to_string()))
}
