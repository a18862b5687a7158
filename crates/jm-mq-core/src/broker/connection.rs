//! Pooled connections: created one at a time, within a deadline, watched for alarms.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use deadpool_lapin::{Hook, Pool, PoolConfig, PoolError, QueueMode, Runtime, Timeouts};
use futures_util::StreamExt;
use lapin::{ConnectionProperties, ConnectionStatus, ErrorKind, Event};

use super::{Broker, doorbell::Doorbell, secrets::Login, transport::Transport};
use crate::{error::ConnectError, metrics::ConnectionGauges};

/// A connection on loan; it goes back to its pool when dropped.
pub(crate) struct PooledConnection {
    object: deadpool_lapin::Connection,
    bell: Arc<Doorbell>,
}

impl PooledConnection {
    /// To be rung by whoever hands it frames that should be written at once.
    pub(crate) fn bell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.bell)
    }

    /// Out of its pool, for good.
    pub(crate) fn take(self) -> lapin::Connection {
        deadpool_lapin::Connection::take(self.object)
    }
}

impl Deref for PooledConnection {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.object
    }
}

/// What a connection is for. Publishers and consumers never share one: a blocked publisher must not hold up acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    Consumer,
    /// A tool's, see [`super::Connection`].
    Operator,
}

impl Role {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Consumer => "consumer",
            Self::Operator => "operator",
        }
    }
}

/// The connection of a consumer, or one of a publisher's: replaced when it breaks.
pub(crate) struct ConnectionPool {
    pool: Pool,
    transport: Transport,
    broker: Broker,
    /// One attempt to connect at a time: a hundred waiting publishes are no reason for a hundred handshakes.
    connecting: tokio::sync::Mutex<()>,
    alarm: Arc<Alarm>,
    role: Role,
    /// Why the last attempt failed, and when, if an operator has to correct something.
    refused: Mutex<Option<(Instant, ConnectError)>>,
}

/// So long, many publishes that wait share one refusal. Consumers have an option for it.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Why the broker blocks publishers, for each connection that it blocks.
#[derive(Debug, Default)]
struct Alarm(Mutex<Vec<String>>);

impl Alarm {
    fn reasons(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPool {
    /// A pool of one connection, which is not open yet. `purpose` shows in the broker's list.
    pub(crate) fn new(broker: &Broker, role: Role, purpose: &str) -> Self {
        let transport = Transport::new(broker);
        let name = format!("{} {} {purpose} {}", broker.identity().app_id, role.label(), broker.identity().instance);
        let login = broker.clone();
        let properties = move || {
            let properties = ConnectionProperties::default().with_connection_name(name.clone().into());
            properties.with_auth_provider(Login(login.clone()))
        };
        let manager =
            deadpool_lapin::Manager::new(broker.options().uri(), properties, async_rs::Runtime::new(transport.clone()));
        let limit = Some(broker.options().connect_timeout);
        let alarm = Arc::<Alarm>::default();
        let watch = {
            let (alarm, io) = (Arc::clone(&alarm), broker.io_handle());
            move |connection: &mut lapin::Connection| {
                // lapin's listeners compete for its events: this is the only one.
                let watching =
                    watch_events(connection.events_listener(), connection.status().clone(), role, Arc::clone(&alarm));
                drop(io.spawn(watching));
            }
        };
        let pool = Pool::builder(manager)
            .config(PoolConfig {
                max_size: 1,
                timeouts: Timeouts { wait: limit, create: limit, recycle: limit },
                queue_mode: QueueMode::Fifo,
            })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::sync_fn(move |connection, _| {
                watch(connection);
                Ok(())
            }))
            .build();
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => unreachable!("deadpool asks for a runtime when there are timeouts, and it has one: {error}"),
        };
        let connecting = tokio::sync::Mutex::new(());
        Self { pool, transport, broker: broker.clone(), connecting, alarm, role, refused: Mutex::default() }
    }

    /// An open connection: one of the pool's, or a new one.
    ///
    /// Gives up after the connect timeout, and leaves neither a thread nor a socket behind when it does.
    pub(crate) async fn get(&self) -> Result<PooledConnection, ConnectError> {
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(error) = self.refused_lately() {
            return Err(error);
        }
        let opened = self.open().await;
        let refused = opened.as_ref().err().filter(|error| error.is_fatal());
        *self.refused() = refused.map(|error| (Instant::now(), error.clone()));
        opened
    }

    fn refused_lately(&self) -> Option<ConnectError> {
        let refused = self.refused();
        let (since, error) = refused.as_ref().filter(|_| self.role == Role::Publisher)?;
        (since.elapsed() < REFUSED_PAUSE).then(|| error.clone())
    }

    fn refused(&self) -> MutexGuard<'_, Option<(Instant, ConnectError)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<PooledConnection, ConnectError> {
        let attempt = self.transport.attempt();
        let limit = self.broker.options().connect_timeout;
        // The pool's own limits stop waiting, but only this one covers dialling and handshake together.
        match tokio::time::timeout(limit, self.pool.get()).await {
            Ok(Ok(object)) => {
                attempt.succeeded();
                match self.transport.bell() {
                    Some(bell) => Ok(PooledConnection { object, bell }),
                    None => unreachable!("a connection was dialled"),
                }
            }
            Ok(Err(error)) => Err(self.explain(error, limit)),
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// Why the broker blocks publishers, if it does.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.alarm.reasons().last().cloned()
    }

    /// What the server said of itself when the connection began: its properties that are texts, by name.
    pub(crate) fn server_properties(&self) -> BTreeMap<String, String> {
        self.transport.greeting().properties
    }

    /// Closes idle connections politely and then ends whatever is still open.
    pub(crate) async fn close(&self, limit: Duration) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        let closing = idle.iter().map(|connection| connection.close(200, "OK".into()));
        // The broker's answer changes nothing any more.
        drop(tokio::time::timeout(limit, futures_util::future::join_all(closing)).await);
        self.transport.end_all();
    }

    /// Ends a connection that was taken out of the pool: politely within `limit`, and then in any case.
    pub(crate) async fn close_one(&self, connection: PooledConnection, limit: Duration) {
        let connection = connection.take();
        drop(tokio::time::timeout(limit, connection.close(200, "OK".into())).await);
        drop(connection);
        self.transport.end_all();
    }

    fn explain(&self, error: PoolError, limit: Duration) -> ConnectError {
        if let Some(error) = self.transport.take_dial_error() {
            return error;
        }
        let options = self.broker.options();
        let PoolError::Backend(error) = error else {
            return match error {
                PoolError::Closed => ConnectError::Lost("this client is shutting down".into()),
                _ => self.silent(limit),
            };
        };
        match error.kind() {
            // A node that restarts: nobody has to do anything.
            ErrorKind::ProtocolError(reply) if reply.get_message().as_str().ends_with("is down") => {
                ConnectError::Unreachable { hosts: options.nodes_shown(), reason: error.to_string() }
            }
            // 403 ACCESS_REFUSED: user or password; 530 NOT_ALLOWED: the virtual host, or no permission in it.
            ErrorKind::ProtocolError(reply) if matches!(reply.kind().get_id(), 403 | 530) => {
                ConnectError::refused(options, reply.get_message().to_string())
            }
            _ => ConnectError::Unreachable { hosts: options.nodes_shown(), reason: error.to_string() },
        }
    }

    fn silent(&self, after: Duration) -> ConnectError {
        ConnectError::Silent { hosts: self.broker.options().nodes_shown(), after, doing: "connecting" }
    }
}

impl Drop for ConnectionPool {
    fn drop(&mut self) {
        self.transport.end_all();
    }
}

impl fmt::Debug for ConnectionPool {
    // deadpool's own `Debug` shows the URI, password included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("status", &self.pool.status()).finish_non_exhaustive()
    }
}

/// Keeps the gauges of one connection, from its opening to its end.
async fn watch_events(
    events: impl futures_core::Stream<Item = Event>,
    status: ConnectionStatus,
    role: Role,
    alarm: Arc<Alarm>,
) {
    let mut gauges = ConnectionGauges::opened(role.label());
    let mut events = std::pin::pin!(events);
    let mut blocked = false;
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) if !blocked => {
                tracing::warn!(role = role.label(), reason, "the broker blocks publishers on this connection");
                alarm.reasons().push(reason);
                blocked = true;
            }
            Event::ConnectionUnblocked if blocked => {
                tracing::info!(role = role.label(), "the broker takes messages again");
                alarm.reasons().pop();
                blocked = false;
            }
            // Also told of a single channel's end. Who used it reports that, with what they were doing.
            Event::Error(_) if !status.connected() => break,
            _ => {}
        }
        gauges.blocked(blocked);
    }
    if blocked {
        alarm.reasons().pop();
    }
}
