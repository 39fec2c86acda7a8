//! An origin that answers everything and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The origin. Its threads end with the process.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&targets);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let targets = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &targets));
            }
        });
        Self { address, targets }
    }

    /// The targets asked for since the last call, in order.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.targets.lock().unwrap())
    }
}

/// What a proxy writes is well formed; its connection ends where it is not.
fn serve(stream: &TcpStream, targets: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let line = read_line(&mut reader)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut length, mut chunked) = (0, false);
        loop {
            let field = read_line(&mut reader)?.to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':')?;
            match name {
                "content-length" => length = value.trim().parse().ok()?,
                "transfer-encoding" => chunked = true,
                "expect" => writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?,
                _ => {}
            }
        }
        targets.lock().unwrap().push(target);
        if chunked {
            skip_chunks(&mut reader)?;
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
        let body = if method == "HEAD" { "" } else { "recorded" };
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{body}");
        writer.write_all(reply.as_bytes()).ok()?;
    }
}

fn skip_chunks(reader: &mut impl BufRead) -> Option<()> {
    loop {
        let line = read_line(reader)?;
        let size = u64::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            while !read_line(reader)?.is_empty() {}
            return Some(());
        }
        std::io::copy(&mut reader.take(size), &mut std::io::sink()).ok()?;
        read_line(reader)?;
    }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\r\n")?;
    Some(String::from_utf8_lossy(line).into_owned())
}
