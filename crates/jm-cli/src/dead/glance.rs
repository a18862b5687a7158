//! Looking into a queue. What is not taken for good goes back to its place, however the look ends.

use jm_mq_core::{ConnectError, Connection, FieldTable};
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
};

use super::{
    letter::Letter,
    quorum::{MAX_DELIVERIES, is_quorum, refuse, refuse_letter},
};
use crate::{
    amqp::{self, ACCESS_REFUSED, NOT_FOUND},
    failure::Failure,
    management::Management,
    operator::Operator,
};

/// A channel of its own into a queue.
///
/// Messages are asked for one at a time, so that no more than one is in memory, and kept from others without an ack
/// while the look lasts. Their order stays as it is; they are marked as redelivered, which means nothing to a dead
/// letter that is published anew.
#[derive(Debug)]
pub(crate) struct Glance {
    connection: Connection,
    channel: Channel,
    queue: String,
    /// How many were ready in the beginning: what comes later is not looked at, or there might be no end.
    ready: u32,
    seen: u32,
    /// The last of those that are to go back.
    held: Option<Acker>,
}

/// A message in hand.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) letter: Letter,
    acker: Acker,
}

/// Why a look ended early.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another connection may do better.
    Lost(ConnectError),
    Ended(Failure),
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        if error.is_fatal() { Self::Ended(error.into()) } else { Self::Lost(error) }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lost(error) => error.into(),
            Trouble::Ended(failure) => failure,
        }
    }
}

pub(crate) fn lost(error: &lapin::Error) -> Trouble {
    Trouble::Lost(ConnectError::Lost(error.to_string()))
}

impl Glance {
    /// Connects. `looks` is whether messages may be given back that were looked at.
    pub(crate) async fn open(
        operator: &Operator<'_>,
        queue: &str,
        looks: bool,
        count_deliveries: bool,
    ) -> Result<Self, Trouble> {
        let name = amqp::short(queue).map_err(Trouble::Ended)?;
        let connection = Connection::open(&operator.broker, "dead letters").await?;
        let channel = connection.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(name.clone(), options, FieldTable::default());
        let declared = connection.within("asking for a queue", declared).await?;
        let ready = match declared {
            Ok(queue) => queue.message_count(),
            Err(error) => return Err(refused(&error, queue)),
        };
        if looks && !count_deliveries {
            let configuration = &operator.configuration;
            let management = Management::new(&configuration.management, &configuration.rabbitmq);
            if is_quorum(&connection, management.map_err(Trouble::Ended)?.as_ref(), name).await? {
                return Err(Trouble::Ended(refuse(queue)));
            }
        }
        Ok(Self { connection, channel, queue: queue.to_owned(), ready, seen: 0, held: None })
    }

    /// How many there were in the beginning.
    pub(crate) fn ready(&self) -> u32 {
        self.ready
    }

    /// How many of them were seen.
    pub(crate) fn seen(&self) -> u32 {
        self.seen
    }

    /// The next one, in the queue's order. The broker's answer proves that it has worked off every ack before it.
    pub(crate) async fn next(&mut self) -> Result<Option<Taken>, Trouble> {
        if self.seen >= self.ready {
            return Ok(None);
        }
        let get = self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default());
        let got = self.connection.within("getting a message", get).await?;
        let got = got.map_err(|error| refused(&error, &self.queue))?;
        let Some(message) = got else { return Ok(None) };
        self.seen += 1;
        let delivery = message.delivery;
        let taken = Taken { letter: Letter::new(delivery.properties, delivery.data), acker: delivery.acker };
        if taken.letter.deliveries() >= MAX_DELIVERIES {
            let failure = refuse_letter(&self.queue, &taken.letter);
            self.hold(taken);
            return Err(Trouble::Ended(failure));
        }
        Ok(Some(taken))
    }

    /// It goes back in the end.
    pub(crate) fn hold(&mut self, taken: Taken) {
        self.held = Some(taken.acker);
    }

    /// It is gone from the queue, once the next answer of the broker is there.
    pub(crate) async fn ack(&mut self, taken: &Taken) -> Result<(), Trouble> {
        let ack = taken.acker.ack(BasicAckOptions::default());
        let written = self.connection.within("acking a message", ack).await?.map_err(|error| lost(&error))?;
        if written { Ok(()) } else { Err(Trouble::Lost(ConnectError::Lost("before an ack was written".into()))) }
    }

    /// Gives back what is held, and returns when the broker has taken notice of everything.
    pub(crate) async fn close(mut self) -> Result<(), ConnectError> {
        if let Some(held) = self.held.take() {
            // By a nack rather than by the channel's end: a quorum queue of RabbitMQ 4.3 does not count that.
            let nack = held.nack(BasicNackOptions { multiple: true, requeue: true });
            let nacked = self.connection.within("giving messages back", nack).await?;
            nacked.map_err(|error| ConnectError::Lost(error.to_string()))?;
        }
        let closed = self.connection.within("closing a channel", self.channel.close(200, "OK".into())).await?;
        self.connection.close().await;
        closed.map_err(|error| ConnectError::Lost(error.to_string()))
    }
}

/// Another connection would hear the same "no".
fn refused(error: &lapin::Error, queue: &str) -> Trouble {
    match amqp::refusal(error) {
        Ok(refusal) if refusal.code == NOT_FOUND && !refusal.text.contains("home node") => {
            Trouble::Ended(Failure::missing(format_args!(
                "no queue `{queue}`; a worker creates its own with its first start, and `jm status` shows which there are"
            )))
        }
        Ok(refusal) if refusal.code == ACCESS_REFUSED => Trouble::Ended(Failure::unavailable(format_args!(
            "RabbitMQ refuses queue `{queue}`: {}; grant the user permission to read it",
            refusal.text
        ))),
        _ => lost(error),
    }
}
