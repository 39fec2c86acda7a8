//! The proxy in front of a server that sends back what it is sent.

use super::*;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

/// More than a socket holds, and no two parts of it alike.
fn bytes(size: usize) -> Vec<u8> {
    let mut prng = Prng::new(7);
    (0..size).map(|_| prng.word().to_le_bytes()[0]).collect()
}

/// A server that echoes, and how many bytes it has read.
fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                let mut some = [0; 1000];
                while let Ok(size @ 1..) = stream.read(&mut some) {
                    counted.fetch_add(size, Ordering::Relaxed);
                    if stream.write_all(&some[..size]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, count)
}

fn connect(proxy: &Proxy) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(proxy.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What comes back of `sent`, to the end.
fn echoed(proxy: &Proxy, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(proxy).unwrap();
    let (mut writer, all) = (stream.try_clone().unwrap(), sent.to_vec());
    let writes = std::thread::spawn(move || {
        writer.write_all(&all).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writes.join().unwrap();
    received
}

/// Sends a byte and waits for it to come back.
fn ping(stream: &mut TcpStream) -> io::Result<u8> {
    let mut byte = [7];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

#[test]
fn what_comes_through_is_what_was_sent_whatever_delays_it() {
    let (server, _) = echo();
    let proxy = Proxy::start(server, 1);
    let ms = Duration::from_millis;
    let usual = Faults::default();
    for (faults, size) in [
        (usual, 1 << 20),
        (Faults { latency: ms(1), jitter: ms(3), ..usual }, 1 << 18),
        (Faults { slice_size_max: 7, pause: Duration::from_micros(1), ..usual }, 3_000),
        (Faults { bytes_per_second: 1 << 20, ..usual }, 1 << 16),
        (Faults { slice_size_max: 1_000, jitter: ms(1), ..usual }, 1 << 16),
    ] {
        proxy.inflict(faults);
        let sent = bytes(size);
        assert!(echoed(&proxy, &sent) == sent, "{faults:?}");
    }
}

#[test]
fn a_blackhole_takes_what_it_is_sent_and_gives_it_back_when_it_is_over() {
    let (server, count) = echo();
    let proxy = Proxy::start(server, 2);
    let mut before = connect(&proxy).unwrap();
    assert_eq!(ping(&mut before).unwrap(), 7);
    proxy.inflict_on(Direction::ToServer, Faults { is_blackhole: true, ..Faults::default() });
    let mut after = connect(&proxy).unwrap();
    before.write_all(b"ab").unwrap();
    after.write_all(b"c").unwrap();
    proxy.wait_until_held(2);
    assert_eq!(count.load(Ordering::Relaxed), 1, "the server was sent no more than the ping");
    proxy.heal();
    let (mut two, mut one) = ([0; 2], [0]);
    before.read_exact(&mut two).unwrap();
    after.read_exact(&mut one).unwrap();
    assert_eq!((&two, &one), (b"ab", b"c"));
}

#[test]
fn a_direction_that_is_well_is_not_held() {
    let (server, count) = echo();
    let proxy = Proxy::start(server, 3);
    proxy.inflict_on(Direction::ToClient, Faults { is_blackhole: true, ..Faults::default() });
    connect(&proxy).unwrap().write_all(b"abc").unwrap();
    proxy.wait_until_held(1);
    assert!(count.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_reset_is_seen_by_connections_that_are_there_and_by_new_ones_until_it_is_over() {
    let (server, _) = echo();
    let proxy = Proxy::start(server, 4);
    let mut before = connect(&proxy).unwrap();
    assert_eq!(ping(&mut before).unwrap(), 7);
    // One that is held is reset as well.
    proxy.inflict(Faults { is_blackhole: true, ..Faults::default() });
    let mut held = connect(&proxy).unwrap();
    held.write_all(b"abc").unwrap();
    proxy.wait_until_held(1);
    proxy.reset();
    for mut stream in [before, held] {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    // It may be told as early as that.
    let new = connect(&proxy).and_then(|mut stream| stream.read(&mut [0]));
    assert_eq!(new.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.heal();
    assert_eq!(ping(&mut connect(&proxy).unwrap()).unwrap(), 7);
}

#[test]
fn a_server_that_resets_is_seen_to() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), 5);
    let mut client = connect(&proxy).unwrap();
    let (server, _) = listener.accept().unwrap();
    pump::reset(&server);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_proxy_that_is_down_refuses_and_comes_up_where_it_was() {
    let (server, _) = echo();
    let proxy = Proxy::start(server, 6);
    let mut before = connect(&proxy).unwrap();
    assert_eq!(ping(&mut before).unwrap(), 7);
    for _ in 0..3 {
        proxy.go_down();
        assert_eq!(connect(&proxy).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        proxy.heal();
        assert_eq!(ping(&mut connect(&proxy).unwrap()).unwrap(), 7);
    }
    assert_eq!(before.read(&mut [0]).unwrap(), 0, "it was closed");
}
