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
        Arc, Mutex, PoisonError, Weak,
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

use super::{
    Broker,
    doorbell::Doorbell,
    greeting::Greeting,
    node::{Arrival, Ends, Route},
    stream::{BrokerStream, Switch, ended},
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
    greeting: Mutex<Greeting>,
    bell: Mutex<Option<Arc<Doorbell>>>,
    /// The address dialled last, until the connection over it has been opened.
    suspect: Mutex<Option<SocketAddr>>,
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
            suspect: Mutex::default(),
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
        lock(&self.dialer.greeting).clone()
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
        lock(&self.dialer.suspect).take();
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

impl Dialer {
    /// Connects to the first node that greets as a broker, within the connect timeout.
    async fn dial(&self) -> io::Result<BrokerStream> {
        let attempt = self.attempt.load(Ordering::SeqCst);
        let greeted = self.greeted().await.and_then(|arrival| self.accepts_login(&arrival).map(|()| arrival));
        let error = match greeted {
            Ok(arrival) => return self.register(arrival, attempt),
            Err(error) => error,
        };
        if matches!(error, ConnectError::Tls { .. }) {
            self.broker.secrets().forget_authorities();
        }
        let text = error.to_string();
        *lock(&self.last_error) = Some(error);
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
    }

    async fn greeted(&self) -> Result<Arrival, ConnectError> {
        let limit = self.broker.options().connect_timeout;
        // Ours ends before the limit of the whole attempt, since it knows what it waits for.
        let deadline = Instant::now() + limit.mul_f64(0.95);
        self.broker.refresh_secrets(deadline).await;
        let suspect = *lock(&self.suspect);
        let first = self.next_node.fetch_add(1, Ordering::Relaxed);
        Route { broker: &self.broker, limit, deadline: deadline.into(), suspect }.to_any(&self.nodes, first).await
    }

    /// A broker that does not offer our way of login would close the connection without a reason.
    fn accepts_login(&self, arrival: &Arrival) -> Result<(), ConnectError> {
        let options = self.broker.options();
        let (wanted, offered) = (options.auth.mechanism(), &arrival.greeting.mechanisms);
        if offered.is_empty() || offered.iter().any(|mechanism| mechanism == wanted) {
            return Ok(());
        }
        Err(ConnectError::refused(options, format!("it does not offer {wanted}, but {}", offered.join(", "))))
    }

    fn register(&self, arrival: Arrival, attempt: u64) -> io::Result<BrokerStream> {
        let Arrival { address, inner, ends: Ends { switch, bell }, frame, greeting } = arrival;
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(&switch));
        drop(streams);
        if attempt <= self.abandoned.load(Ordering::SeqCst) {
            return Err(ended());
        }
        *lock(&self.suspect) = Some(address);
        *lock(&self.greeting) = greeting;
        *lock(&self.bell) = Some(Arc::clone(&bell));
        Ok(BrokerStream::new(inner, switch, bell, frame))
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
