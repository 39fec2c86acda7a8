//! NGINX as the origin: files over TLS, which it knows by their ETag or time of change.

use crate::certificate::Certificate;
use crate::proxy::{Kind, Proxy, free_address};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{Process, until};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// NGINX with some files, and our server before it.
struct World {
    _fixture: Fixture,
    nginx: Proxy,
    folder: PathBuf,
    pelton: Process,
}

impl World {
    /// What is not fresh is not served, and is kept.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        fs::create_dir(path.join("items")).unwrap();
        let certificate = Certificate::make(&path);
        let (address, fixture) = (free_address(), Fixture::empty());
        let Certificate { certificate: file, key } = &certificate;
        let text = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log stderr; user root;
            events {{ }}
            http {{
                log_format asked '$uri $status $https $http_if_none_match|$http_if_modified_since';
                access_log {0}/log asked;
                root {0}; default_type text/plain;
                map $status $freshness {{ 304 600; default 0; }}
                add_header Cache-Control max-age=$freshness;
                server {{
                    listen {address} ssl;
                    ssl_certificate {1}; ssl_certificate_key {2};
                    location /items/timed {{ etag off; }}
                }}
            }}",
            path.display(),
            file.display(),
            key.display(),
        );
        let nginx = Proxy::run(Kind::Nginx, folder, address, &text, &[]);
        let url = format!("upstream.url=https://localhost:{}/items/{{key}}", address.port());
        let own = ["origin.kind=http", "cache.stale_while_revalidate=0s", &url];
        let pelton =
            Process::start(&fixture.store(), &[&own[..], &[&certificate.setting()]].concat());
        Self { _fixture: fixture, nginx, folder: path, pelton }
    }

    /// Writes a file, as if that was some minutes ago.
    fn write(&self, key: &str, value: &str, minutes: u64) {
        let path = self.folder.join("items").join(key);
        fs::write(&path, value).unwrap();
        let time = SystemTime::now() - Duration::from_secs(60 * minutes);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn get(&self, key: &str) -> Reply {
        Client::new(self.pelton.connect()).get(&format!("/lookup/{key}"))
    }

    /// What NGINX was asked of a key, once that was so often: the status, and by what it knew it.
    fn asked(&self, key: &str, count: usize) -> Vec<(String, String)> {
        let name = format!("/items/{key} ");
        let lines = || {
            let log = fs::read_to_string(self.folder.join("log")).unwrap();
            let lines = log.lines().filter_map(|line| line.strip_prefix(&*name).map(str::to_owned));
            lines.collect::<Vec<String>>()
        };
        until("NGINX has written its log", || lines().len() >= count);
        let parts = lines().into_iter().map(|line| {
            let (status, rest) = line.split_once(" on ").expect("it is asked over TLS");
            (status.to_owned(), rest.to_owned())
        });
        parts.collect()
    }
}

#[test]
#[ignore = "needs nginx: make test-peers"]
fn nginx_is_asked_over_tls_whether_its_files_have_changed() {
    let world = World::start();
    for (key, is_tag) in [("tagged", true), ("timed", false)] {
        world.write(key, "one", 10);
        for _ in 0..4 {
            assert_eq!(world.get(key).text(), "one", "{key}");
        }
        let asked = world.asked(key, 2);
        let [(first, none), (second, known)] = &*asked else { panic!("{asked:?}") };
        assert_eq!((&**first, &**none, &**second), ("200", "-|-", "304"), "{key}");
        assert_eq!(known.ends_with("|-"), is_tag, "{known}");
        assert_eq!(known.starts_with("-|"), !is_tag, "{known}");
    }
    until("it is counted", || {
        world.pelton.metric("pelton_origin_fetches_unchanged_total", "") == 2
    });
}

#[test]
#[ignore = "needs nginx: make test-peers"]
fn a_file_that_has_changed_comes_whole_and_one_that_is_gone_is_absent() {
    let world = World::start();
    for (value, minutes) in [("one", 30), ("two", 20), ("three", 10)] {
        world.write("key", value, minutes);
        assert_eq!(world.get("key").text(), value);
    }
    fs::remove_file(world.folder.join("items/key")).unwrap();
    assert_eq!(world.get("key").status, 404);
    let asked = world.asked("key", 4);
    let statuses: Vec<_> = asked.iter().map(|(status, _)| &**status).collect();
    assert_eq!(statuses, ["200", "200", "200", "404"]);
    assert!(asked[1..].iter().all(|(_, known)| known != "-|-"), "{asked:?}");
    assert_eq!(world.pelton.metric("pelton_origin_fetches_unchanged_total", ""), 0);
}

#[test]
#[ignore = "needs nginx: make test-peers"]
fn a_server_for_which_nobody_vouches_is_asked_for_nothing() {
    let world = World::start();
    world.write("key", "one", 10);
    let port = world.nginx.address.port();
    let fixture = Fixture::empty();
    let other = Certificate::make(&fixture.path("")).setting();
    let url = |host: &str| format!("upstream.url=https://{host}:{port}/items/{{key}}");
    for sets in [&[&*url("localhost")][..], &[&url("localhost"), &other]] {
        let stranger = Process::start(&fixture.store(), &[&["origin.kind=http"], sets].concat());
        assert_eq!(Client::new(stranger.connect()).get("/lookup/key").status, 502, "{sets:?}");
    }
    assert_eq!(world.get("key").text(), "one");
    assert_eq!(world.asked("key", 1).len(), 1);
}
