//! NGINX and HAProxy in front of an address, with connections to it that are used again.

use crate::program;
use pelton_tests::process::{free_ports, root};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
}

/// A proxy that runs; dropped, it ends.
pub(crate) struct Proxy {
    child: Child,
    _folder: TempDir,
    pub(crate) address: SocketAddr,
}

/// How often a proxy that starts is asked whether it listens.
const TRIES: u32 = 500;

impl Proxy {
    /// Starts one in front of `upstream`, which gets one connection at a time.
    pub(crate) fn start(kind: Kind, upstream: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let text = match kind {
            Kind::Nginx => nginx(&folder, address, upstream),
            Kind::Haproxy => haproxy(address, upstream),
        };
        Self::run(kind, folder, address, &text, &[])
    }

    /// Starts one with a file of `docs/proxies`, in which each of `places` is replaced by ours.
    pub(crate) fn documented(kind: Kind, file: &str, places: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut text = fs::read_to_string(root().join("docs/proxies").join(file)).unwrap();
        for (theirs, ours) in [("127.0.0.1:8000", address.to_string())].iter().chain(places) {
            assert!(text.contains(theirs), "{file} says {theirs}");
            text = text.replace(theirs, ours);
        }
        // What the distribution's own file or the supervisor says.
        let globals = format!("daemon off; user root; pid {}/pid;", folder.path().display());
        let nginx = ["-e", "stderr", "-g", &globals];
        let options: &[&str] = if kind == Kind::Nginx { &nginx } else { &[] };
        Self::run(kind, folder, address, &text, options)
    }

    /// Starts one with this text, in a folder of its own.
    pub(crate) fn run(
        kind: Kind,
        folder: TempDir,
        address: SocketAddr,
        text: &str,
        options: &[&str],
    ) -> Self {
        let file = folder.path().join("proxy.conf");
        fs::write(&file, text).unwrap();
        let mut command = match kind {
            Kind::Nginx => program("nginx"),
            Kind::Haproxy => program("haproxy"),
        };
        command.arg(if kind == Kind::Nginx { "-c" } else { "-f" }).arg(&file).args(options);
        let errors = fs::File::create(folder.path().join("errors")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        let mut proxy = Self { child: child.unwrap(), _folder: folder, address };
        proxy.wait_until_it_listens();
        proxy
    }

    fn wait_until_it_listens(&mut self) {
        for _ in 0..TRIES {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let errors = fs::read_to_string(self._folder.path().join("errors")).unwrap();
        panic!("the proxy does not start: {errors}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that a master takes its workers along.
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ended = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _reaped = self.child.wait();
    }
}

/// An address on which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_ports(1)).into()
}

fn nginx(folder: &TempDir, address: SocketAddr, upstream: SocketAddr) -> String {
    let folder = folder.path().display();
    format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; user root;
        events {{ worker_connections 4096; }}
        http {{
            access_log off;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s;
            keepalive_requests 1000000;
            upstream pelton {{ server {upstream} max_conns=1; keepalive 1; }}
            server {{
                listen {address};
                location / {{
                    proxy_pass http://pelton;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_next_upstream off;
                    proxy_pass_request_body on;
                }}
            }}
        }}"
    )
}

fn haproxy(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "defaults
            mode http
            timeout client 1s
            timeout http-request 1s
            timeout http-keep-alive 1s
            timeout server 5s
            timeout connect 5s
            timeout queue 5s
            retries 0
        frontend front
            bind {address}
            default_backend pelton
        backend pelton
            http-reuse always
            server one {upstream} maxconn 1
"
    )
}
