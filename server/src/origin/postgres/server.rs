//! One server: where it is, and how it is connected to.
//!
//! Its password comes from a file: URLs are shown to whoever asks for the configuration.
#![expect(clippy::disallowed_types, reason = "one thread: connections share a server")]

use super::fault::{Seldom, told};
use crate::error::StartError;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How much later a server gives up what it was asked, beside a quarter of the time.
const LATER: Duration = Duration::from_millis(100);

/// The least time after which a peer that acknowledges nothing is given up.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// After so much silence a peer is asked whether it is there: firewalls forget who says nothing.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A server.
pub(super) struct Server {
    name: String,
    config: Config,
    timeout: Duration,
    tls: MakeRustlsConnect,
    connecting: Seldom,
    ending: Seldom,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the URL that stands at `index`. What the server is asked has hardly more than
    /// `timeout` there too, so that it does not go on for nobody.
    ///
    /// # Errors
    /// It is no URL, or one with a password.
    pub(super) fn parse(
        index: usize,
        url: &str,
        password: Option<&str>,
        timeout: Duration,
        tls: MakeRustlsConnect,
    ) -> Result<Self, StartError> {
        let mut config = read(url).map_err(|what| {
            StartError::failed(
                format!("postgres.urls[{index}] is {what}."),
                "Write it as postgres://USER@HOST:5432/DATABASE, with ?sslmode=require for TLS; a \
                 password belongs into postgres.password_file.",
            )
        })?;
        if let Some(password) = password {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name("pelton");
        }
        // A little later than ours ends: who waits is told that the time is over.
        let milliseconds = (timeout + timeout / 4 + LATER).as_millis();
        let own = format!(
            "-c statement_timeout={milliseconds} \
             -c idle_in_transaction_session_timeout={milliseconds}"
        );
        // The later one counts.
        let theirs = config.get_options().unwrap_or_default();
        let options = format!("{own} {theirs}");
        config.options(options.trim_end());
        config.connect_timeout(timeout);
        config.tcp_user_timeout(timeout.max(SILENCE_MIN)).keepalives_idle(KEEPALIVE);
        let (connecting, ending) = (Seldom::default(), Seldom::default());
        Ok(Self { name: name(&config), config, timeout, tls, connecting, ending })
    }

    /// Host, port and database.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes a connection, unless that takes too long. Why there is none is logged now and then.
    pub(super) async fn connect(self: &Rc<Self>) -> Option<Client> {
        let connected = timeout(self.timeout, self.config.connect(self.tls.clone())).await;
        let why = match connected {
            Ok(Ok((client, connection))) => {
                let server = Rc::clone(self);
                tokio::task::spawn_local(async move { server.ended(connection.await) });
                return Some(client);
            }
            Ok(Err(error)) => told(&error),
            Err(_elapsed) => "it does not answer in time".to_owned(),
        };
        if self.connecting.is_due() {
            tracing::warn!(server = %self.name, "no connection to a server of the origin: {why}");
        }
        None
    }

    fn ended(&self, ended: Result<(), tokio_postgres::Error>) {
        if let Err(error) = ended
            && self.ending.is_due()
        {
            let why = told(&error);
            tracing::warn!(server = %self.name, "a connection to the origin has ended: {why}");
        }
    }
}

/// What a URL says; what it is instead, as the end of a sentence. The URL itself is not repeated:
/// it may hold a password.
fn read(url: &str) -> Result<Config, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("not a postgres:// URL".to_owned());
    }
    let config: Config = url.parse().map_err(|error| format!("no URL: {}", told(&error)))?;
    if config.get_password().is_some() {
        return Err("one with a password, which everybody would be shown".to_owned());
    }
    if config.get_user().is_none() {
        return Err("without a user".to_owned());
    }
    if config.get_hosts().is_empty() {
        return Err("without a host".to_owned());
    }
    Ok(config)
}

fn name(config: &Config) -> String {
    let ports = config.get_ports();
    let host = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or_else(|| ports.first()).unwrap_or(&5432);
        match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    };
    let hosts: Vec<_> = config.get_hosts().iter().enumerate().map(host).collect();
    let database = config.get_dbname().or_else(|| config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, password: Option<&str>) -> Result<Server, StartError> {
        let tls = crate::origin::tls::config(None).expect("the system's certificates, or none");
        Server::parse(1, url, password, Duration::from_secs(2), MakeRustlsConnect::new(tls))
    }

    #[test]
    fn a_server_is_called_by_its_place_and_never_by_its_password() {
        for (url, name) in [
            ("postgres://me@db.example/items", "db.example:5432/items"),
            ("postgresql://me@127.0.0.1:6432", "127.0.0.1:6432/me"),
            ("postgres://me@a:1,b:2/items?target_session_attrs=read-write", "a:1,b:2/items"),
            ("postgres://me@%2Frun%2Fpostgresql/items", "/run/postgresql:5432/items"),
        ] {
            let server = server(url, Some("secret")).expect(url);
            assert_eq!(server.name(), name);
            assert!(!format!("{server:?}").contains("secret"));
        }
    }

    #[test]
    fn the_time_that_a_statement_has_is_told_to_the_server_and_can_be_set() {
        let options = |url| server(url, None).expect(url).config.get_options().map(str::to_owned);
        let own = "-c statement_timeout=2600 -c idle_in_transaction_session_timeout=2600";
        assert_eq!(options("postgres://me@h/d").as_deref(), Some(own));
        let set = options("postgres://me@h/d?options=-c%20statement_timeout%3D5").expect("some");
        assert_eq!(set, format!("{own} -c statement_timeout=5"));
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason_and_not_repeated() {
        for (url, what) in [
            ("host=secret user=me", "not a postgres:// URL"),
            ("postgres://me:secret@host/db", "with a password"),
            ("postgres://me@host/db?password=secret", "with a password"),
            ("postgres://host/secret", "without a user"),
            ("postgres://me@/secret", "without a host"),
            ("postgres://me@host:secret/db", "no URL"),
            ("postgres://me@host/db?sslmode=secret", "no URL"),
        ] {
            let error = server(url, None).expect_err(url).to_string();
            assert!(error.contains("postgres.urls[1]") && error.contains(what), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
