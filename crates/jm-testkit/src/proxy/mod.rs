//! A TCP proxy whose link can be made bad.

mod engine;
mod link;
mod pump;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use self::engine::{Command, Engine};
use self::link::{End, Link};

/// The proxy's thread does what it is told within milliseconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Listens on 127.0.0.1 and forwards to another address, well or badly.
///
/// It runs on a thread of its own: a test's runtime may be busy or gone, and a fault is in effect when the method
/// that causes it returns. Faults add up until [`TcpProxy::heal`]. Dropping the proxy closes all its connections.
#[derive(Debug)]
pub struct TcpProxy {
    port: u16,
    link: Arc<Link>,
    commands: UnboundedSender<(Command, std::sync::mpsc::SyncSender<()>)>,
}

impl TcpProxy {
    /// Starts a proxy for `upstream`. A client whose connection upstream is refused is reset.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let link = Arc::new(Link::default());
        let (commands, inbox) = unbounded_channel();
        let (started, start) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&link);
        let run = async move {
            match engine::listen() {
                Ok((port, listener)) => {
                    // Fails when the caller gave up; the commands' end then ends the engine.
                    let _ = started.send(Ok(port));
                    Engine::new(port, upstream, shared).run(listener, inbox).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        thread::Builder::new()
            .name("tcp-proxy".to_owned())
            .spawn(move || runtime.block_on(run))
            .context("could not start the TCP proxy's thread")?;
        let port = start.await.context("the TCP proxy's thread ended")??;
        Ok(Self { port, link, commands })
    }

    /// The port clients connect to, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all present connections in order (FIN), on both sides. New ones are accepted.
    pub fn cut(&self) {
        self.command(Command::End(End::Close));
    }

    /// Resets all present connections (RST), on both sides. New ones are accepted.
    pub fn reset(&self) {
        self.command(Command::End(End::Reset));
    }

    /// Refuses new connections as a closed port does (`connection refused`), while the port stays reserved.
    /// Present connections stay.
    pub fn refuse(&self, on: bool) {
        self.command(Command::Refuse(on));
    }

    /// Reads and discards in both directions, as if the other side had gone without a word; connections stay open, and
    /// new ones are accepted. When it ends, connections that lost bytes are reset, since a gap in their stream is
    /// something no network makes; see [`TcpProxy::stall`] for a silence that loses nothing.
    pub fn swallow(&self, on: bool) {
        self.link.change(|weather| weather.swallow = on);
        if !on {
            self.command(Command::EndLossy);
        }
    }

    /// Holds what arrives in both directions, and forwards it when this ends.
    pub fn stall(&self, on: bool) {
        self.link.change(|weather| weather.stall = on);
    }

    /// Adds latency to what is forwarded, in each direction.
    pub fn delay(&self, latency: Option<Duration>) {
        self.link.change(|weather| weather.delay = latency);
    }

    /// Forwards at most `bytes` in one write, with a millisecond between writes, so that frames arrive in pieces.
    pub fn slice(&self, bytes: Option<usize>) {
        self.link.change(|weather| weather.slice = bytes.map(|bytes| bytes.max(1)));
    }

    /// Forwards `bytes` more from client to server, over all connections, then resets all of them: in the middle of
    /// a frame, if the number is right.
    pub fn reset_after(&self, bytes: u64) {
        self.link.change(|weather| weather.reset_after = Some(bytes));
        if bytes == 0 {
            self.reset();
        }
    }

    /// Ends all faults: plain forwarding, connections accepted.
    pub fn heal(&self) {
        self.link.change(|weather| *weather = link::Weather::default());
        self.command(Command::EndLossy);
        self.refuse(false);
    }

    /// How many connections there are now.
    pub fn connections(&self) -> usize {
        self.link.connections()
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.link.accepted()
    }

    /// Returns when the engine has done it. It is gone only if it panicked, and then nothing is forwarded any more.
    fn command(&self, command: Command) {
        let (done, wait) = sync_channel(1);
        if self.commands.send((command, done)).is_ok() {
            let _ = wait.recv_timeout(COMMAND_LIMIT);
        }
    }
}
