//! Connections of their own for messages that were under way when the broker closed a connection because of one of them.
//!
//! A message that the broker cannot take makes it close the whole connection, with all that is under way on it, and the
//! broker does not say which one it was. So each of them is published again alone: most are confirmed, and the one at
//! fault takes nobody along.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::channel::{ConfirmChannel, Failure, Lease, closed};
use crate::broker::{Broker, ConnectionPool, PooledConnection, Role};

/// Such connections of one kind of messages at a time.
const MAX_ALONE: usize = 4;
/// A polite close of one.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Ward {
    broker: Broker,
    /// Shows in the broker's list of connections.
    purpose: &'static str,
    places: Arc<Semaphore>,
}

/// A connection for one message. It ends with this.
pub(super) struct Alone {
    connection: PooledConnection,
    pool: ConnectionPool,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Ward {
    pub(super) fn new(broker: &Broker, purpose: &'static str) -> Self {
        Self { broker: broker.clone(), purpose, places: Arc::new(Semaphore::new(MAX_ALONE)) }
    }

    /// A channel on a connection that nobody else uses.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return Err(closed()) };
        let pool = ConnectionPool::new(&self.broker, Role::Publisher, self.purpose);
        let connection = pool.get().await.map_err(Failure::Lost)?;
        let opened = ConfirmChannel::open(&connection, self.broker.options().rpc_timeout).await;
        let channel = opened.map_err(Failure::Lost)?;
        Ok(Lease::alone(channel, Alone { connection, pool, _place: place }))
    }

    pub(super) fn close(&self) {
        self.places.close();
    }
}

impl Alone {
    pub(super) async fn close(self) {
        self.pool.close_one(self.connection, CLOSE_LIMIT).await;
    }
}
