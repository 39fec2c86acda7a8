//! What `pelton-bench` reads from servers, for whoever wants to try it apart from the binary.

pub mod replies;
