//! Confirm-mode channels: long-lived, each used by one publish at a time, thrown away after anything unexpected.

use std::{
    mem,
    pin::pin,
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
use tokio::time::timeout;

use super::ward::Alone;
use crate::{
    broker::{ConnectionPool, Doorbell, PooledConnection},
    error::{ConnectError, PublishError},
    headers::{MAX_HEADER_BYTES, encoded_size, frame_size},
    message::Outgoing,
    metrics::{ChannelGauges, ChannelLimit},
    options::MAX_NAME_BYTES,
};

/// The channels of one publisher, over its connections.
pub(super) struct ChannelPool {
    pool: Pool<Channels>,
    _limit: Option<ChannelLimit>,
}

/// Opens channels, for the pool.
struct Channels {
    /// Of one connection each, used in turn.
    connections: Vec<ConnectionPool>,
    next: AtomicUsize,
    rpc_timeout: Duration,
    counted: bool,
    /// The largest frame of the connection opened last, in bytes.
    frame_max: AtomicUsize,
}

/// One of the pool.
struct Pooled {
    channel: Arc<ConfirmChannel>,
    gauges: Option<ChannelGauges>,
}

/// A channel in confirm mode, and the state of its connection.
pub(super) struct ConfirmChannel {
    channel: Channel,
    connection: ConnectionStatus,
    bell: Arc<Doorbell>,
    /// The largest frame that the broker takes, in bytes.
    frame_max: usize,
}

/// Why an attempt to publish came to nothing.
pub(super) enum Failure {
    /// Another attempt would end in the same way.
    Final(PublishError),
    /// The connection or channel is gone.
    Lost(ConnectError),
    /// The broker closed the connection because of something that was under way on it, in the broker's words.
    Closed(String),
}

impl ChannelPool {
    /// `counted`: the gauges of a publisher's channels are about this pool.
    pub(super) fn new(connections: Vec<ConnectionPool>, size: usize, rpc_timeout: Duration, counted: bool) -> Self {
        let frame_max = AtomicUsize::new(DEFAULT_FRAME_MAX);
        let pool = Pool::builder(Channels { connections, next: AtomicUsize::new(0), rpc_timeout, counted, frame_max })
            // The waits end with the publish's deadline, which drops them.
            .config(PoolConfig { max_size: size, timeouts: Timeouts::new(), queue_mode: QueueMode::Lifo })
            .build();
        match pool {
            Ok(pool) => Self { pool, _limit: counted.then(|| ChannelLimit::new(size)) },
            Err(error) => unreachable!("deadpool refuses only timeouts without a runtime: {error}"),
        }
    }

    /// A channel that nobody else uses meanwhile. It is thrown away unless it is given back.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        match self.pool.get().await {
            Ok(mut pooled) => {
                if let Some(gauges) = &mut pooled.gauges {
                    gauges.leased(true);
                }
                Ok(Lease { channel: Arc::clone(&pooled.channel), place: Place::Pool(pooled) })
            }
            Err(PoolError::Backend(error)) => Err(Failure::Lost(error)),
            // Nothing else is left: there are no timeouts and no hooks.
            Err(_) => Err(closed()),
        }
    }

    /// The largest frame that the broker takes, in bytes, as far as is known.
    pub(super) fn frame_max(&self) -> usize {
        self.pool.manager().frame_max.load(Ordering::Relaxed)
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

/// RabbitMQ's, until a connection says otherwise.
const DEFAULT_FRAME_MAX: usize = 131_072;

pub(super) fn closed() -> Failure {
    Failure::Final(PublishError::NotConnected {
        written: false,
        after: Duration::ZERO,
        source: ConnectError::Lost("this publisher is closed".into()),
    })
}

impl managed::Manager for Channels {
    type Type = Pooled;
    type Error = ConnectError;

    async fn create(&self) -> Result<Pooled, ConnectError> {
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
        match ConfirmChannel::open(&connection, self.rpc_timeout).await {
            Ok(channel) => {
                self.frame_max.store(channel.frame_max, Ordering::Relaxed);
                Ok(Pooled { channel: Arc::new(channel), gauges: self.counted.then(ChannelGauges::opened) })
            }
            // Other publishes have all its channels, and return them.
            Err(error @ ConnectError::TooFewChannels { .. }) => Err(error),
            Err(error) => {
                // It may be half dead. The next channel has a new one, perhaps to another node.
                drop(connection.take());
                Err(error)
            }
        }
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &managed::Metrics) -> RecycleResult<ConnectError> {
        if pooled.channel.channel.status().connected() && pooled.channel.connection.connected() {
            Ok(())
        } else {
            Err(RecycleError::message("the channel is gone"))
        }
    }
}

impl ConfirmChannel {
    pub(super) async fn open(connection: &PooledConnection, limit: Duration) -> Result<Self, ConnectError> {
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
            Ok::<_, ConnectError>(channel)
        };
        let channel = match timeout(limit, open).await {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(ConnectError::Silent {
                    hosts: "its present connection".into(),
                    after: limit,
                    doing: "opening a channel",
                });
            }
        };
        let frame_max = usize::try_from(connection.configuration().frame_max()).unwrap_or(usize::MAX);
        Ok(Self { channel, connection: connection.status().clone(), bell: connection.bell(), frame_max })
    }

    /// Writes one message and waits for its confirm, for as long as the channel lives.
    async fn publish(&self, outgoing: &Outgoing, app_id: &str) -> Result<(), Failure> {
        let failed = |error: &lapin::Error| classify(error, outgoing);
        self.check_frame(outgoing, app_id)?;
        let confirm = self.write(outgoing, app_id).await.map_err(|error| failed(&error))?;
        match confirm.await.map_err(|error| failed(&error))? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => Err(Failure::Final(unroutable(outgoing, &returned))),
            Confirmation::Nack(_) => Err(Failure::Final(refused(outgoing))),
            Confirmation::NotRequested => Err(Failure::Lost(ConnectError::Lost("the channel forgot confirms".into()))),
        }
    }

    async fn write(&self, outgoing: &Outgoing, app_id: &str) -> lapin::Result<PublisherConfirm> {
        let Outgoing { exchange, routing_key, message, .. } = outgoing;
        let options = BasicPublishOptions { mandatory: outgoing.mandatory(), ..Default::default() };
        let properties =
            if message.verbatim { message.properties.clone() } else { with_app_id(&message.properties, app_id) };
        // Neither name is longer than AMQP allows: `defect` was asked before.
        let (exchange, routing_key) = (exchange.as_str().into(), routing_key.as_str().into());
        self.bell.ring_for(self.channel.basic_publish(exchange, routing_key, options, &message.body, properties)).await
    }

    /// A larger frame than was agreed upon would cost the connection.
    fn check_frame(&self, outgoing: &Outgoing, app_id: &str) -> Result<(), Failure> {
        let size = frame_size(&outgoing.message.properties) + 1 + app_id.len();
        if size <= self.frame_max {
            return Ok(());
        }
        let reason =
            format!("properties and headers of {size} bytes; this broker's frame has room for {}", self.frame_max);
        Err(Failure::Final(PublishError::Invalid { exchange: outgoing.exchange.clone(), reason }))
    }
}

/// A channel on loan.
pub(super) struct Lease {
    channel: Arc<ConfirmChannel>,
    place: Place,
}

/// Where a channel belongs.
enum Place {
    Pool(Object<Channels>),
    Alone(Box<Alone>),
    /// It ends with its lease.
    Nowhere,
}

impl Lease {
    pub(super) fn alone(channel: ConfirmChannel, alone: Alone) -> Self {
        Self { channel: Arc::new(channel), place: Place::Alone(Box::new(alone)) }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel.channel
    }

    /// The channel may be used again: all it was asked for has been answered.
    pub(super) async fn give_back(mut self) {
        match mem::replace(&mut self.place, Place::Nowhere) {
            Place::Pool(mut pooled) => {
                if let Some(gauges) = &mut pooled.gauges {
                    gauges.leased(false);
                }
            }
            Place::Alone(alone) => alone.close().await,
            Place::Nowhere => {}
        }
    }

    /// The state of the connection, to be read later.
    pub(super) fn connection(&self) -> ConnectionStatus {
        self.channel.connection.clone()
    }

    /// Waits while the broker blocks publishers: what is written now would be delivered after the alarm, even when
    /// its publish has long failed.
    pub(super) async fn wait_while_blocked(&self, announce: impl FnOnce()) {
        let connection = &self.channel.connection;
        if !connection.blocked() {
            return;
        }
        announce();
        wait_while_blocked(connection).await;
    }

    /// Writes one message and waits for its confirm, for as long as the channel lives. After `patience` the pool may have
    /// another channel in the place of this one.
    pub(super) async fn publish(
        &mut self,
        outgoing: &Outgoing,
        app_id: &str,
        patience: Duration,
    ) -> Result<(), Failure> {
        let Self { channel, place } = self;
        let mut publish = pin!(channel.publish(outgoing, app_id));
        if let Ok(published) = timeout(patience, publish.as_mut()).await {
            return published;
        }
        if let Place::Pool(pooled) = mem::replace(place, Place::Nowhere) {
            drop(Object::take(pooled));
        }
        publish.await
    }

    /// Writes one message. Its frames are on their way once this future was polled for the first time.
    pub(super) async fn write(&self, outgoing: &Outgoing, app_id: &str) -> lapin::Result<PublisherConfirm> {
        self.channel.write(outgoing, app_id).await
    }

    pub(super) fn check_frame(&self, outgoing: &Outgoing, app_id: &str) -> Result<(), Failure> {
        self.channel.check_frame(outgoing, app_id)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Place::Pool(pooled) = mem::replace(&mut self.place, Place::Nowhere) {
            // Something went wrong or nobody waits any more: an answer to the old publish could come at any time.
            drop(Object::take(pooled));
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
        403 => Failure::Final(PublishError::Forbidden { exchange: outgoing.exchange.clone(), reason }),
        // A property the broker does not accept, or a body over its limit.
        311 | 406 => Failure::Final(PublishError::Invalid { exchange: outgoing.exchange.clone(), reason }),
        // A frame, a method or an address that the broker could not take, or that it failed over. Others are an operator's
        // doing, or of a virtual host that went away.
        501..=506 | 540 | 541 => Failure::Closed(error.to_string()),
        _ => Failure::Lost(ConnectError::Lost(error.to_string())),
    }
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(error) => error,
            Failure::Closed(reason) => Self::Lost(reason),
            Failure::Final(error) => Self::Lost(error.to_string()),
        }
    }
}
