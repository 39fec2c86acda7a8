//! Asks the admin port of a running server.

use crate::config::Config;
use crate::error::StartError;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the port may take to accept, and to send anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of the longest answer that is read.
const ANSWER_SIZE_MAX: u64 = 16 << 20;

/// What the port at `admin`, or else that of the configuration, answers to a GET of `path`: what
/// it means, and as it came.
///
/// # Errors
/// There is no port, nothing answers, or it has no answer.
pub(super) fn report<T: DeserializeOwned>(
    config: &Config,
    admin: Option<SocketAddr>,
    path: &str,
) -> Result<(T, String), StartError> {
    let Some(address) = admin.or(config.admin.listen) else {
        return Err(StartError::unreachable(
            "The admin port is off.",
            "Give the server one (admin.listen), or say where another's is: --admin ADDRESS.",
        ));
    };
    let (status, body) = get(address, path).map_err(|error| {
        StartError::unreachable(
            format!("Nothing answers at http://{address}{path}: {error}."),
            "Start the server, or say where its admin port is: --admin ADDRESS, or -c with the \
             server's own file.",
        )
    })?;
    let report = serde_json::from_str(&body).ok().filter(|_| status == 200);
    let report = report.ok_or_else(|| {
        StartError::failed(
            format!("http://{address}{path} answers {status}: {}", body.trim_end()),
            "Is it the admin port of a server of this version, and not its data port?",
        )
    })?;
    Ok((report, body))
}

/// A GET of `path`: the status and the body.
fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the body ends with the connection, and is not cut into chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_SIZE_MAX).read_to_string(&mut answer)?;
    read(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not HTTP"))
}

fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nshard 1\r\n\r\n";
        assert_eq!(read(answer), Some((503, "shard 1\r\n\r\n".to_owned())));
        for answer in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 OK\r\n\r\n"] {
            assert_eq!(read(answer), None);
        }
    }
}
