//! What an error of Redis says of the server, and of the request.

use crate::error::FetchFailure;
use crate::origin::guard::Trouble;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What an error means for who asked.
pub(super) fn trouble(error: &RedisError) -> Trouble {
    let is_ill = matches!(
        error.kind(),
        ErrorKind::Io
            | ErrorKind::Parse
            | ErrorKind::Server(
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
            )
    );
    if is_ill {
        return Trouble::Failed;
    }
    // The server is well, and will say the same the next time.
    tracing::debug!("a Redis server refuses a request: {error}");
    Trouble::Useless(FetchFailure::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_answer_is_told_from_one_that_will_not() {
        let io = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(trouble(&io), Trouble::Failed);
        let refused = RedisError::from((ErrorKind::Server(ServerErrorKind::NoPerm), "no"));
        assert_eq!(trouble(&refused), Trouble::Useless(FetchFailure::Unavailable));
        let loading = RedisError::from((ErrorKind::Server(ServerErrorKind::BusyLoading), "wait"));
        assert_eq!(trouble(&loading), Trouble::Failed);
    }
}
