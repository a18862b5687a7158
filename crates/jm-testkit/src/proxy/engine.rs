//! The proxy's thread: accepts, keeps the connections, and does what the handle says.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::link::{End, Link};
use super::pump::{Ended, pump};
use crate::ports::free_ports;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Tries with other ports when somebody else took one between our look and our listening.
const ATTEMPTS: usize = 5;

/// How long a closed connection is read on: closing a socket with unread bytes would send a reset instead of a FIN.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection upstream that is not yet established is waited for, to end it as told.
const CONNECT_GRACE: Duration = Duration::from_millis(200);

/// Between attempts to get the port back, and after an accept that failed (as with too many open files).
const RETRY: Duration = Duration::from_millis(5);

/// What the handle wants done.
#[derive(Debug)]
pub(crate) enum Command {
    /// End all connections.
    End(End),
    /// Reset the connections that lost bytes.
    EndLossy,
    /// Refuse new connections, or accept them again.
    Refuse(bool),
}

/// Tells a connection how to end; it answers when it has.
type Ending = (End, oneshot::Sender<()>);

#[derive(Debug)]
struct Connection {
    ending: oneshot::Sender<Ending>,
    lossy: Arc<AtomicBool>,
}

/// What a connection tells the engine.
#[derive(Debug)]
enum Event {
    Gone(u64),
    ResetDue,
}

#[derive(Debug)]
enum Door {
    Open(TcpListener),
    /// Holds the port.
    Refusing(TcpSocket),
}

/// The proxy, on its thread.
#[derive(Debug)]
pub(crate) struct Engine {
    port: u16,
    upstream: SocketAddr,
    link: Arc<Link>,
    connections: HashMap<u64, Connection>,
    events: UnboundedSender<Event>,
    inbox: UnboundedReceiver<Event>,
}

impl Engine {
    pub(crate) fn new(port: u16, upstream: SocketAddr, link: Arc<Link>) -> Self {
        let (events, inbox) = unbounded_channel();
        Self { port, upstream, link, connections: HashMap::new(), events, inbox }
    }

    /// Runs until the handle is dropped.
    pub(crate) async fn run(
        mut self,
        listener: TcpListener,
        mut commands: UnboundedReceiver<(Command, SyncSender<()>)>,
    ) {
        let mut door = Door::Open(listener);
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some((command, done)) = command else { return };
                    match command {
                        Command::End(end) => self.end(end, |_| true).await,
                        Command::EndLossy => self.end(End::Reset, |lossy| lossy).await,
                        Command::Refuse(on) => door = self.refuse(door, on).await,
                    }
                    // A handle that stopped waiting needs no answer.
                    let _ = done.try_send(());
                }
                Some(event) = self.inbox.recv() => match event {
                    Event::Gone(id) => drop(self.connections.remove(&id)),
                    Event::ResetDue => self.end(End::Reset, |_| true).await,
                },
                accepted = accept(&door) => match accepted {
                    Ok(client) => self.forward(client),
                    Err(_) => sleep(RETRY).await,
                },
            }
        }
    }

    /// Ends the connections that are chosen by whether they lost bytes, and returns when they have ended.
    async fn end(&mut self, end: End, chosen: impl Fn(bool) -> bool) {
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| chosen(connection.lossy.load(Ordering::SeqCst)))
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            let Some(connection) = self.connections.remove(&id) else { continue };
            let (ended, wait) = oneshot::channel();
            if connection.ending.send((end, ended)).is_ok() {
                // Fails when the connection ended by itself meanwhile.
                let _ = wait.await;
            }
        }
    }

    async fn refuse(&self, door: Door, on: bool) -> Door {
        match (door, on) {
            (Door::Open(listener), true) => {
                // What waits to be accepted is reset with the listener.
                drop(listener);
                loop {
                    match reserve(self.port) {
                        Ok(socket) => return Door::Refusing(socket),
                        Err(_) => sleep(RETRY).await,
                    }
                }
            }
            (Door::Refusing(socket), false) => {
                let mut socket = socket;
                loop {
                    match socket.listen(BACKLOG) {
                        Ok(listener) => return Door::Open(listener),
                        Err(_) => sleep(RETRY).await,
                    }
                    socket = loop {
                        match reserve(self.port) {
                            Ok(socket) => break socket,
                            Err(_) => sleep(RETRY).await,
                        }
                    };
                }
            }
            (door, _) => door,
        }
    }

    fn forward(&mut self, client: TcpStream) {
        let id = self.link.accepted.fetch_add(1, Ordering::SeqCst);
        self.link.open.fetch_add(1, Ordering::SeqCst);
        let (ending, end) = oneshot::channel();
        let lossy = Arc::new(AtomicBool::new(false));
        self.connections.insert(id, Connection { ending, lossy: Arc::clone(&lossy) });
        let (upstream, link, events) = (self.upstream, Arc::clone(&self.link), self.events.clone());
        tokio::spawn(async move {
            connection(client, upstream, &link, &lossy, end, &events).await;
            // The engine is gone only when the whole runtime is.
            let _ = events.send(Event::Gone(id));
        });
    }
}

/// Listens on a free port of 127.0.0.1. Not one of the kernel's choice, see `ports`.
pub(crate) fn listen() -> Result<(u16, TcpListener)> {
    let mut attempt = 1;
    loop {
        let port = free_ports(1)?.into_iter().next().context("no free port")?;
        match reserve(port).and_then(|socket| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok((port, listener)),
            Err(error) if attempt >= ATTEMPTS => return Err(error).context("could not listen on 127.0.0.1"),
            Err(_) => attempt += 1,
        }
    }
}

/// A socket that has the port but does not listen: to connect to it is refused, and nobody else gets the port.
fn reserve(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

async fn accept(door: &Door) -> io::Result<TcpStream> {
    match door {
        Door::Open(listener) => listener.accept().await.map(|(stream, _)| stream),
        Door::Refusing(_) => pending().await,
    }
}

/// The life of one connection. It has left the link's count when it tells that it ended.
async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    link: &Arc<Link>,
    lossy: &AtomicBool,
    mut end: oneshot::Receiver<Ending>,
    events: &UnboundedSender<Event>,
) {
    let connect = TcpStream::connect(upstream);
    tokio::pin!(connect);
    let (mut server, ending) = tokio::select! {
        connected = &mut connect => (connected.ok(), None),
        ending = &mut end => {
            // The server may have accepted already, and is to see the same end.
            let connected = timeout(CONNECT_GRACE, connect).await;
            (connected.ok().and_then(Result::ok), ending.ok())
        }
    };
    let ending = match (&mut server, ending) {
        (Some(server), None) => {
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            tokio::select! {
                ending = &mut end => ending.ok(),
                ended = both_ways(&mut client, server, link, lossy) => match ended {
                    Ok(Ended::Finished) => None,
                    Ok(Ended::ResetDue) => {
                        // The engine resets this connection with the others.
                        let _ = events.send(Event::ResetDue);
                        (&mut end).await.ok()
                    }
                    // One side was reset: so is the other.
                    Err(_) => Some((End::Reset, oneshot::channel().0)),
                },
            }
        }
        (None, None) => Some((End::Reset, oneshot::channel().0)),
        (_, ending) => ending,
    };
    link.open.fetch_sub(1, Ordering::SeqCst);
    let Some((end, ended)) = ending else { return };
    let sides = [Some(client), server].into_iter().flatten();
    match end {
        End::Reset => sides.for_each(reset),
        End::Close => {
            for side in sides {
                close(side).await;
            }
        }
    }
    let _ = ended.send(());
}

async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    link: &Arc<Link>,
    lossy: &AtomicBool,
) -> io::Result<Ended> {
    let (client_reader, client_writer) = client.split();
    let (server_reader, server_writer) = server.split();
    let up = pump(client_reader, server_writer, link, true, lossy);
    let down = pump(server_reader, client_writer, link, false, lossy);
    tokio::pin!(up, down);
    // The first error or due reset ends both; otherwise each direction ends by itself.
    tokio::select! {
        ended = &mut up => match ended? {
            Ended::Finished => down.await,
            Ended::ResetDue => Ok(Ended::ResetDue),
        },
        ended = &mut down => match ended? {
            Ended::Finished => up.await,
            Ended::ResetDue => Ok(Ended::ResetDue),
        },
    }
}

fn reset(stream: TcpStream) {
    // Without this a socket closes by FIN.
    let _ = stream.set_zero_linger();
    drop(stream);
}

async fn close(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    tokio::spawn(async move {
        let mut discarded = [0; 4096];
        let _ = timeout(LINGER, async { while matches!(stream.read(&mut discarded).await, Ok(1..)) {} }).await;
    });
}
