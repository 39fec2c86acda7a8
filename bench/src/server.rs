//! A server under test: a process that is started, found to listen, and ended.

#![expect(clippy::disallowed_methods, reason = "waits for servers to come up")]

use crate::address::Address;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Tries to connect to a new server, [`TRY_EVERY`] apart: 30 s in all.
const TRIES_MAX: u32 = 300;
const TRY_EVERY: Duration = Duration::from_millis(100);

/// A server under test, ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: &'static Address,
    pub(crate) name: &'static str,
}

impl Server {
    /// Starts what the shell takes `command` for, with the port at each `{port}`.
    pub(crate) fn start(command: &str, port: u16, name: &'static str) -> io::Result<Self> {
        let command = command.replace("{port}", &port.to_string());
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let address = Address::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Self { child, address: Box::leak(Box::new(address)), name })
    }

    pub(crate) fn wait_until_up(&mut self) -> io::Result<()> {
        for _ in 0..TRIES_MAX {
            if let Some(status) = self.child.try_wait()? {
                let error = format!("the {} has ended before it listened: {status}", self.name);
                return Err(io::Error::other(error));
            }
            if self.address.probe(TRY_EVERY).is_ok() {
                return Ok(());
            }
            std::thread::sleep(TRY_EVERY);
        }
        Err(io::Error::other(format!("the {} does not listen on {}", self.name, self.address)))
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.id()).expect("a process id is positive");
        Ok(kill(Pid::from_raw(id), signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
