//! The byte streams under lapin's connections: dialled by us, so that they have deadlines, our TLS, and an off switch.
//!
//! lapin runs each connection on a thread of its own, which ends when its stream fails. Its handshake has no deadline:
//! against a stopped broker each abandoned connect would leave a thread and a socket behind. So we hand lapin, and
//! deadpool-lapin above it, a runtime whose "TCP connect" is [`Transport::dial`], and end the stream of a connection
//! that nobody wants any more. See `docs/adr/0002-own-transport.md`.

use std::{
    fmt,
    future::Future,
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_rs::{
    Tokio,
    traits::{Executor, Reactor, RuntimeKit},
    util::Task,
};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{
    Broker,
    doorbell::Doorbell,
    greeting::Greeting,
    socket::Socket,
    stream::{BrokerStream, Inner, Switch, ended},
};
use crate::error::ConnectError;

/// A lapin runtime whose streams we control. One for each pool of connections.
#[derive(Clone)]
pub(super) struct Transport {
    kit: Tokio,
    dialer: Arc<Dialer>,
}

struct Dialer {
    broker: Broker,
    nodes: Vec<(String, u16)>,
    /// The node that the next dial tries first. Starts anywhere, to spread the replicas over a cluster.
    next_node: AtomicUsize,
    streams: Mutex<Vec<Weak<Switch>>>,
    /// Why the last dial failed, in our words; lapin keeps only an I/O error.
    last_error: Mutex<Option<ConnectError>>,
    /// Numbers the attempts to connect. What an abandoned attempt still dials is closed at once.
    attempt: AtomicU64,
    abandoned: AtomicU64,
    /// Of the stream dialled last.
    greeting: Mutex<Arc<OnceLock<Greeting>>>,
    bell: Mutex<Option<Arc<Doorbell>>>,
}

impl Transport {
    pub(super) fn new(broker: &Broker) -> Self {
        let nodes = broker.options().nodes();
        let dialer = Dialer {
            broker: broker.clone(),
            next_node: AtomicUsize::new(fastrand::usize(..nodes.len())),
            nodes,
            streams: Mutex::default(),
            last_error: Mutex::default(),
            attempt: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            greeting: Mutex::default(),
            bell: Mutex::default(),
        };
        Self { kit: Tokio::default().with_handle(broker.io_handle()), dialer: Arc::new(dialer) }
    }

    /// Begins an attempt to connect. Unless it is said to have succeeded, dropping it ends what it dialled.
    /// Only one attempt may be under way at a time.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        lock(&self.dialer.last_error).take();
        Attempt { dialer: &self.dialer, number: self.dialer.attempt.fetch_add(1, Ordering::SeqCst) + 1, open: true }
    }

    /// Why the dial of the present attempt failed, if it did.
    pub(super) fn take_dial_error(&self) -> Option<ConnectError> {
        lock(&self.dialer.last_error).take()
    }

    /// What the server said of itself when the last connection began.
    pub(super) fn greeting(&self) -> Greeting {
        lock(&self.dialer.greeting).get().cloned().unwrap_or_default()
    }

    /// Wakes the thread of the last connection.
    pub(super) fn bell(&self) -> Option<Arc<Doorbell>> {
        lock(&self.dialer.bell).clone()
    }

    /// Ends every stream, and with it lapin's thread; for connections that did not close in time.
    pub(super) fn end_all(&self) {
        self.dialer.end_streams(|_| true);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("nodes", &self.dialer.nodes).finish_non_exhaustive()
    }
}

/// See [`Transport::attempt`].
pub(super) struct Attempt<'a> {
    dialer: &'a Dialer,
    number: u64,
    open: bool,
}

impl Attempt<'_> {
    pub(super) fn succeeded(mut self) {
        self.open = false;
        for switch in lock(&self.dialer.streams).iter().filter_map(Weak::upgrade) {
            switch.establish();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.open {
            self.dialer.abandoned.fetch_max(self.number, Ordering::SeqCst);
            self.dialer.end_streams(|switch| !switch.is_established());
        }
    }
}

/// What a stream is reached by from outside.
struct Ends {
    switch: Arc<Switch>,
    bell: Arc<Doorbell>,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self { switch: Arc::default(), bell: Arc::new(Doorbell::new()?) })
    }
}

impl Dialer {
    /// Tries each node once, starting with the next in turn, until one accepts, within the connect timeout.
    async fn dial(&self) -> io::Result<BrokerStream> {
        let attempt = self.attempt.load(Ordering::SeqCst);
        let limit = self.broker.options().connect_timeout;
        let deadline = Instant::now() + limit;
        let first = self.next_node.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for offset in 0..self.nodes.len() {
            let (host, port) = &self.nodes[first.wrapping_add(offset) % self.nodes.len()];
            // One silent node must not use up the time of the others.
            let nodes_left = u32::try_from(self.nodes.len() - offset).unwrap_or(1);
            let share = deadline.saturating_duration_since(Instant::now()) / nodes_left;
            match self.dial_node(host, *port, share).await {
                Ok((inner, ends)) => return self.register(inner, ends, attempt),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or(ConnectError::Unreachable { hosts: String::new(), reason: "no node".into() });
        let text = error.to_string();
        *lock(&self.last_error) = Some(error);
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
    }

    async fn dial_node(&self, host: &str, port: u16, limit: Duration) -> Result<(Inner, Ends), ConnectError> {
        let address = format!("{host}:{port}");
        let unreachable_node =
            |error: &io::Error| ConnectError::Unreachable { hosts: address.clone(), reason: error.to_string() };
        let connect = async {
            let stream = TcpStream::connect((host, port)).await;
            let stream = stream
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
                .map_err(|error| unreachable_node(&error))?;
            let ends = Ends::new().map_err(|error| unreachable_node(&error))?;
            let stream = Socket::new(stream, self.broker.io_handle(), Arc::clone(&ends.bell), Arc::clone(&ends.switch));
            let inner = match self.broker.tls() {
                None => Inner::Plain(stream.compat()),
                Some(config) => {
                    let tls_error = |reason: String| ConnectError::Tls { host: address.clone(), reason };
                    let expected = self.broker.options().tls.as_ref().and_then(|tls| tls.server_name.as_deref());
                    let name = ServerName::try_from(expected.unwrap_or(host).to_owned())
                        .map_err(|error| tls_error(error.to_string()))?;
                    let stream = TlsConnector::from(config).connect(name, stream).await;
                    stream.map(|stream| Inner::Tls(Box::new(stream.compat()))).map_err(|error| {
                        // A reset is no verdict on certificates: a load balancer whose broker restarts does that.
                        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                            Some(verdict) => tls_error(verdict.to_string()),
                            None => unreachable_node(&error),
                        }
                    })?
                }
            };
            Ok((inner, ends))
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Silent { hosts: address.clone(), after: limit, doing: "connecting" }),
        }
    }

    fn register(&self, inner: Inner, Ends { switch, bell }: Ends, attempt: u64) -> io::Result<BrokerStream> {
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(&switch));
        drop(streams);
        if attempt <= self.abandoned.load(Ordering::SeqCst) {
            return Err(ended());
        }
        let greeting = Arc::<OnceLock<_>>::default();
        *lock(&self.greeting) = Arc::clone(&greeting);
        *lock(&self.bell) = Some(Arc::clone(&bell));
        Ok(BrokerStream::new(inner, switch, bell, greeting))
    }

    fn end_streams(&self, which: impl Fn(&Switch) -> bool) {
        for switch in lock(&self.streams).iter().filter_map(Weak::upgrade).filter(|switch| which(switch)) {
            switch.end();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these mutexes guard is never left half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RuntimeKit for Transport {}

impl Executor for Transport {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, f: F) -> T {
        self.kit.block_on(f)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, f: F) -> Task<Self::Task<T>> {
        self.kit.spawn(f)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, f: F) -> Task<Self::Task<T>> {
        self.kit.spawn_blocking(f)
    }
}

impl Reactor for Transport {
    type TcpStream = BrokerStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.kit.register(socket)
    }

    fn sleep(&self, dur: Duration) -> Self::Sleep {
        self.kit.sleep(dur)
    }

    fn interval(&self, dur: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.kit.interval(dur)
    }

    /// lapin's address is the URI's placeholder; the nodes come from the options.
    fn tcp_connect_addr(
        &self,
        _placeholder: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let dialer = Arc::clone(&self.dialer);
        async move { dialer.dial().await }
    }
}
