//! Confirm-mode channels: long-lived, each used by one publish at a time, thrown away after anything unexpected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{self, Object, Pool, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use futures_util::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, ConnectionStatus, ErrorKind, PublisherConfirm,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};

use crate::{
    broker::{ConnectionPool, Doorbell},
    error::{ConnectError, PublishError},
    headers::{MAX_HEADER_BYTES, encoded_size},
    message::Outgoing,
    metrics::{ChannelGauges, ChannelLimit},
    options::MAX_NAME_BYTES,
};

/// The channels of one publisher, over its connections.
pub(super) struct ChannelPool {
    pool: Pool<Channels>,
    _limit: ChannelLimit,
}

/// Opens channels, for the pool.
struct Channels {
    /// Of one connection each, used in turn.
    connections: Vec<ConnectionPool>,
    next: AtomicUsize,
    rpc_timeout: Duration,
}

/// A channel in confirm mode, and the state of its connection.
pub(super) struct ConfirmChannel {
    channel: Channel,
    connection: ConnectionStatus,
    bell: Arc<Doorbell>,
    gauges: ChannelGauges,
}

/// Why an attempt to publish came to nothing.
pub(super) enum Failure {
    /// Another attempt would end in the same way.
    Final(PublishError),
    /// The connection or channel is gone.
    Lost(ConnectError),
}

impl ChannelPool {
    pub(super) fn new(connections: Vec<ConnectionPool>, size: usize, rpc_timeout: Duration) -> Self {
        let pool = Pool::builder(Channels { connections, next: AtomicUsize::new(0), rpc_timeout })
            // The waits end with the publish's deadline, which drops them.
            .config(PoolConfig { max_size: size, timeouts: Timeouts::new(), queue_mode: QueueMode::Lifo })
            .build();
        match pool {
            Ok(pool) => Self { pool, _limit: ChannelLimit::new(size) },
            Err(error) => unreachable!("deadpool refuses only timeouts without a runtime: {error}"),
        }
    }

    /// A channel that nobody else uses meanwhile. It is thrown away unless it is given back.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        match self.pool.get().await {
            Ok(mut channel) => {
                channel.gauges.leased(true);
                Ok(Lease(Some(channel)))
            }
            Err(PoolError::Backend(error)) => Err(Failure::Lost(error)),
            // Nothing else is left: there are no timeouts and no hooks.
            Err(_) => Err(Failure::Final(PublishError::NotConnected {
                written: false,
                after: Duration::ZERO,
                source: ConnectError::Lost("this publisher is closed".into()),
            })),
        }
    }

    /// Whether every channel is out on loan.
    pub(super) fn exhausted(&self) -> bool {
        let status = self.pool.status();
        status.size >= status.max_size && status.available == 0
    }

    /// Why the broker blocks publishers, if it does.
    pub(super) fn alarm(&self) -> Option<String> {
        self.pool.manager().connections.iter().find_map(ConnectionPool::alarm)
    }

    pub(super) async fn close(&self, limit: Duration) {
        self.pool.close();
        join_all(self.pool.manager().connections.iter().map(|connection| connection.close(limit))).await;
    }
}

impl managed::Manager for Channels {
    type Type = ConfirmChannel;
    type Error = ConnectError;

    async fn create(&self) -> Result<ConfirmChannel, ConnectError> {
        // The channel outlives this loan of the connection, which goes back for the next channel.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let connections = &self.connections[turn % self.connections.len()];
        let connection = loop {
            let connection = connections.get().await?;
            if !connection.status().blocked() {
                break connection;
            }
            // A request to open a channel would wait in the connection, and be answered when nobody wants it any more.
            // The connection goes back meanwhile, so that others learn why they have to wait.
            let status = connection.status().clone();
            drop(connection);
            wait_while_blocked(&status).await;
        };
        let allowed = connection.configuration().channel_max();
        let lost = |error: lapin::Error| match error.kind() {
            ErrorKind::ChannelsLimitReached => {
                let needed = usize::from(allowed) + 1;
                ConnectError::TooFewChannels { allowed, needed, option: "publisher.channels" }
            }
            _ => ConnectError::Lost(error.to_string()),
        };
        let open = async {
            let channel = connection.create_channel().await.map_err(lost)?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(lost)?;
            Ok(ConfirmChannel {
                channel,
                connection: connection.status().clone(),
                bell: connection.bell(),
                gauges: ChannelGauges::opened(),
            })
        };
        let opened = tokio::time::timeout(self.rpc_timeout, open).await;
        // Other publishes have all its channels, and return them.
        if !matches!(opened, Ok(Ok(_) | Err(ConnectError::TooFewChannels { .. }))) {
            // It may be half dead. The next channel has a new one, perhaps to another node.
            drop(connection.take());
        }
        match opened {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Silent {
                hosts: "its present connection".into(),
                after: self.rpc_timeout,
                doing: "opening a channel",
            }),
        }
    }

    async fn recycle(&self, channel: &mut ConfirmChannel, _: &managed::Metrics) -> RecycleResult<ConnectError> {
        if channel.channel.status().connected() && channel.connection.connected() {
            Ok(())
        } else {
            Err(RecycleError::message("the channel is gone"))
        }
    }
}

/// A channel on loan.
pub(super) struct Lease(Option<Object<Channels>>);

impl Lease {
    fn get(&self) -> &ConfirmChannel {
        match &self.0 {
            Some(channel) => channel,
            None => unreachable!("a lease is only emptied when it ends"),
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.get().channel
    }

    /// The channel may be used again: all it was asked for has been answered.
    pub(super) fn give_back(mut self) {
        if let Some(mut channel) = self.0.take() {
            channel.gauges.leased(false);
        }
    }

    /// The state of the connection, to be read later.
    pub(super) fn connection(&self) -> ConnectionStatus {
        self.get().connection.clone()
    }

    /// Waits while the broker blocks publishers: what is written now would be delivered after the alarm, even when
    /// its publish has long failed.
    pub(super) async fn wait_while_blocked(&self, announce: impl FnOnce()) {
        let connection = &self.get().connection;
        if !connection.blocked() {
            return;
        }
        announce();
        wait_while_blocked(connection).await;
    }

    /// Writes one message and waits for its confirm.
    pub(super) async fn publish(&self, outgoing: &Outgoing, app_id: &str) -> Result<(), Failure> {
        let failed = |error: &lapin::Error| classify(error, outgoing);
        let confirm = self.write(outgoing, app_id).await.map_err(|error| failed(&error))?;
        match confirm.await.map_err(|error| failed(&error))? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => Err(Failure::Final(unroutable(outgoing, &returned))),
            Confirmation::Nack(_) => Err(Failure::Final(refused(outgoing))),
            Confirmation::NotRequested => Err(Failure::Lost(ConnectError::Lost("the channel forgot confirms".into()))),
        }
    }

    /// Writes one message. Its frames are on their way once this future was polled for the first time.
    pub(super) async fn write(&self, outgoing: &Outgoing, app_id: &str) -> lapin::Result<PublisherConfirm> {
        let Outgoing { exchange, routing_key, message, .. } = outgoing;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = with_app_id(&message.properties, app_id);
        // Neither name is longer than AMQP allows: `defect` was asked before.
        let (exchange, routing_key) = (exchange.as_str().into(), routing_key.as_str().into());
        let ConfirmChannel { channel, bell, .. } = self.get();
        bell.ring_for(channel.basic_publish(exchange, routing_key, options, &message.body, properties)).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(channel) = self.0.take() {
            // Something went wrong or nobody waits any more: an answer to the old publish could come at any time.
            drop(Object::take(channel));
        }
    }
}

async fn wait_while_blocked(connection: &ConnectionStatus) {
    // lapin's events have one listener, which is the pool's; the state is there for all.
    while connection.blocked() && connection.connected() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn with_app_id(properties: &BasicProperties, app_id: &str) -> BasicProperties {
    let properties = properties.clone();
    match (properties.app_id(), ShortString::try_new(app_id)) {
        (None, Ok(app_id)) => properties.with_app_id(app_id),
        _ => properties,
    }
}

/// What makes a message impossible to send, so that no connection is risked on it.
pub(super) fn defect(outgoing: &Outgoing) -> Option<String> {
    let Outgoing { exchange, routing_key, message, .. } = outgoing;
    if let Some(defect) = &message.defect {
        return Some(defect.clone());
    }
    for (what, name) in [("exchange", exchange), ("routing key", routing_key)] {
        if name.len() > MAX_NAME_BYTES {
            return Some(format!("{what} of {} bytes; AMQP allows 255", name.len()));
        }
    }
    let headers = message.properties.headers().as_ref().map_or(0, encoded_size);
    (headers > MAX_HEADER_BYTES).then(|| format!("headers of {headers} bytes; a frame has room for {MAX_HEADER_BYTES}"))
}

pub(super) fn unroutable(outgoing: &Outgoing, returned: &BasicReturnMessage) -> PublishError {
    PublishError::Unroutable {
        exchange: outgoing.exchange.clone(),
        routing_key: outgoing.routing_key.clone(),
        reason: format!("{} {}", returned.reply_code, returned.reply_text),
    }
}

pub(super) fn refused(outgoing: &Outgoing) -> PublishError {
    PublishError::Refused { exchange: outgoing.exchange.clone(), routing_key: outgoing.routing_key.clone() }
}

/// Tells a message that cannot be published from a connection that went away.
pub(super) fn classify(error: &lapin::Error, outgoing: &Outgoing) -> Failure {
    let ErrorKind::ProtocolError(reply) = error.kind() else {
        return Failure::Lost(ConnectError::Lost(error.to_string()));
    };
    let reason = reply.get_message().to_string();
    match reply.kind().get_id() {
        // The exchange does not exist.
        404 => Failure::Final(PublishError::Unroutable {
            exchange: outgoing.exchange.clone(),
            routing_key: outgoing.routing_key.clone(),
            reason,
        }),
        // No permission; a property the broker does not accept, or a body over its limit.
        311 | 403 | 406 => Failure::Final(PublishError::Invalid { exchange: outgoing.exchange.clone(), reason }),
        _ => Failure::Lost(ConnectError::Lost(error.to_string())),
    }
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(error) => error,
            Failure::Final(error) => Self::Lost(error.to_string()),
        }
    }
}
