//! One connection for a program that speaks to the broker itself: an operator's tool.

use std::{collections::BTreeMap, fmt, time::Duration};

use lapin::Channel;
use tokio::time::timeout;

use super::{Broker, ConnectionPool, PooledConnection, Role};
use crate::error::ConnectError;

/// How long the broker may take to say goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// An open connection: the same transport, TLS and deadlines as consumers and publishers have, and nothing on top of it.
///
/// It is not replaced when it breaks. What was taken over it and not settled is back in its queue when it ends, however
/// it ends.
pub struct Connection {
    pool: ConnectionPool,
    inner: PooledConnection,
    hosts: String,
    rpc_timeout: Duration,
}

impl Connection {
    /// Connects. `purpose` shows in the broker's list of connections.
    ///
    /// # Errors
    ///
    /// When no host answers within the connect timeout, or the broker refuses.
    pub async fn open(broker: &Broker, purpose: &str) -> Result<Self, ConnectError> {
        let pool = ConnectionPool::new(broker, Role::Operator, purpose);
        let inner = pool.get().await?;
        let options = broker.options();
        Ok(Self { pool, inner, hosts: options.nodes_shown(), rpc_timeout: options.rpc_timeout })
    }

    /// A new channel. The broker closes a channel on which it refuses anything: take another one for each question that
    /// it may refuse.
    ///
    /// # Errors
    ///
    /// When the connection is gone or the broker does not answer within the RPC timeout.
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let opened = self.within("opening a channel", self.inner.create_channel()).await?;
        opened.map_err(|error| ConnectError::Lost(error.to_string()))
    }

    /// Waits for the broker's answer, at most for the RPC timeout; `doing` is what the error says otherwise.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub async fn within<T>(&self, doing: &'static str, answer: impl Future<Output = T>) -> Result<T, ConnectError> {
        let silent = |_| ConnectError::Silent { hosts: self.hosts.clone(), after: self.rpc_timeout, doing };
        timeout(self.rpc_timeout, answer).await.map_err(silent)
    }

    /// What the server said of itself when the connection began: `product`, `version`, `cluster_name` and more.
    pub fn server_properties(&self) -> BTreeMap<String, String> {
        self.pool.server_properties()
    }

    /// The heartbeat agreed upon with the broker; zero is none.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.inner.configuration().heartbeat().into())
    }

    /// Why the broker blocks publishers on this connection, if it has said so. It says so only to connections that have
    /// published.
    pub fn blocked(&self) -> Option<String> {
        self.pool.alarm()
    }

    /// Whether it is still open, as far as is known.
    pub fn is_open(&self) -> bool {
        self.inner.status().connected()
    }

    /// Closes it, within 2 s. What was not settled goes back to its queue.
    pub async fn close(self) {
        self.pool.close_one(self.inner, CLOSE_LIMIT).await;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}
