//! The tap: sees every frame between a process and the broker, and records what counts.
//!
//! It stands next to the process, before the bad link: what it records of an ack is that the process has written it, not
//! that the broker has got it. Of what comes from the broker, it takes the time before it passes it on, and of what goes
//! to it, after it has come: so a process that did the one because of the other has the later time.

mod frames;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use self::frames::{Frames, Side};
use crate::history::{Log, What};

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Listens for one process's connections to one node.
#[derive(Debug)]
pub(crate) struct Tap {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

/// What is recorded of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// Where to.
    pub(crate) log: Arc<Log>,
    /// The numbers of connections, of all taps.
    pub(crate) connections: Arc<AtomicU32>,
    /// The process that stands in the tap's place now.
    pub(crate) process: Arc<AtomicU32>,
    pub(crate) node: u8,
}

impl Tap {
    /// Starts a tap that passes everything on to `upstream`, on this runtime.
    pub(crate) async fn start(upstream: SocketAddr, recorder: Recorder) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            loop {
                // Too many open files, at worst: some will be closed.
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    continue;
                };
                tokio::spawn(connection(client, upstream, recorder.clone()));
            }
        });
        Ok(Self { port, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which side ended a connection.
enum End {
    Client,
    Broker,
}

async fn connection(mut client: TcpStream, upstream: SocketAddr, recorder: Recorder) {
    let process = recorder.process.load(Ordering::SeqCst);
    // A broker that cannot be reached closes its client's connection, as the proxy between does.
    let Ok(mut broker) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let connection = recorder.connections.fetch_add(1, Ordering::SeqCst);
    recorder.log.add(What::Opened { connection, process, node: recorder.node });
    let end = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        let up = pump(from_client, to_broker, Frames::new(connection, Side::Client), &recorder.log);
        let down = pump(from_broker, to_client, Frames::new(connection, Side::Broker), &recorder.log);
        tokio::pin!(up, down);
        tokio::select! {
            failed = &mut up => match failed {
                Failed::Read => End::Client,
                Failed::Write => End::Broker,
            },
            failed = &mut down => match failed {
                Failed::Read => End::Broker,
                Failed::Write => End::Client,
            },
        }
    };
    recorder.log.add(What::Ended { connection, by_client: matches!(end, End::Client) });
}

/// Which end of a pump is gone.
enum Failed {
    Read,
    Write,
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut frames: Frames, log: &Log) -> Failed {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return Failed::Read;
            }
            Ok(count) => count,
        };
        frames.read(&buffer[..count], log);
        if to.write_all(&buffer[..count]).await.is_err() {
            return Failed::Write;
        }
    }
}
