//! The server with an origin of its own, as `docs/embed.md` shows it.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::http::Client;
use pelton_tests::process::{binary, free_ports, until};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

/// It ends with the test.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_example_serves_what_its_origin_knows() {
    let path = binary().with_file_name("examples").join("own_origin");
    assert!(path.exists(), "{} is not built: run `make test`", path.display());
    let port = free_ports(1);
    let listen = format!("server.listen=127.0.0.1:{port}");
    let sets = [&*listen, "admin.listen=off", "cache.memory=64MiB", "server.shards=2"];
    let child = Command::new(path).args(sets).stdin(Stdio::null()).spawn().unwrap();
    let _example = Example(child);
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    until("it listens", || connect().is_ok());
    let mut client = Client::new(connect().unwrap());
    for (key, status, text) in
        [("12", 200, "144"), ("12", 200, "144"), ("x", 404, r#"{"error":"not_found"}"#)]
    {
        let reply = client.get(&format!("/lookup/{key}"));
        assert_eq!((reply.status, reply.text()), (status, text));
    }
}
