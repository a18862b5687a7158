//! Looking into a queue. What is not taken out goes back to its place, however the look ends.

use jm_mq_core::{ConnectError, Connection, FieldTable};
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
};

use super::{
    giver::{Given, Giver},
    letter::Letter,
    origin::{self, Target},
};
use crate::{
    amqp::{self, ACCESS_REFUSED, NOT_FOUND},
    delivery_limit::{Looks, looks},
    exit::Code,
    failure::Failure,
    management::Management,
    operator::Operator,
};

/// A channel of its own into a queue.
///
/// Messages are asked for one at a time, so that no more than one is in memory, and kept from others without an ack
/// while the look lasts. Their order stays as it is; they are marked as redelivered, which means nothing to a dead
/// letter that is published anew.
///
/// In a queue that counts looks a message goes back by `basic.nack` only while its count is below half of the limit.
/// After that a copy of it is published to the queue, confirmed, and the message acked: the copy's count is 0.
#[derive(Debug)]
pub(crate) struct Glance<'a> {
    operator: &'a Operator<'a>,
    connection: Connection,
    channel: Channel,
    queue: String,
    looks: Looks,
    /// How many were ready in the beginning: what comes later is not looked at, or there might be no end.
    ready: u32,
    seen: u32,
    /// The last of those that are to go back.
    held: Option<Acker>,
    /// Publishes the copies of those that must not be counted again.
    giver: Option<Giver>,
}

/// What the messages are looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// All go back. Refused where that counts, unless the operator asked for it.
    Look { although_counted: bool },
    /// Some are taken out, and the others go back.
    Choose,
    /// All are taken out, from the first one on.
    TakeAll,
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

impl<'a> Glance<'a> {
    /// Connects, and finds out whether looks are counted before anything is looked at.
    pub(crate) async fn open(operator: &'a Operator<'a>, queue: &str, purpose: Purpose) -> Result<Self, Trouble> {
        let name = amqp::short(queue).map_err(Trouble::Ended)?;
        let connection = Connection::open(&operator.broker, "dead letters").await?;
        let channel = connection.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(name, options, FieldTable::default());
        let declared = connection.within("asking for a queue", declared).await?;
        let ready = match declared {
            Ok(queue) => queue.message_count(),
            Err(error) => return Err(refused(&error, queue)),
        };
        let configuration = &operator.configuration;
        let management = Management::new(&configuration.management, &configuration.rabbitmq).map_err(Trouble::Ended)?;
        let looks = looks(&connection, management.as_ref(), queue).await.map_err(Trouble::Ended)?;
        let mut giver = None;
        if let Some(objection) = looks.objection(queue).filter(|_| purpose != Purpose::TakeAll) {
            if purpose == (Purpose::Look { although_counted: false }) {
                let text = format_args!("{objection}; --count-deliveries looks all the same, and loses nothing");
                return Err(Trouble::Ended(Failure::new(Code::Usage, text)));
            }
            giver = Some(Giver::open(operator).await?);
            if let Some(giver) = &giver
                && let Some(reason) = giver.refuses_default_exchange().await?
            {
                return Err(Trouble::Ended(Failure::unavailable(format_args!(
                    "{objection}; what goes back would have to be published anew, and RabbitMQ refuses that: {reason}; \
                     grant the user permission to write to `amq.default`"
                ))));
            }
        }
        Ok(Self { operator, connection, channel, queue: queue.to_owned(), looks, ready, seen: 0, held: None, giver })
    }

    /// How many there were in the beginning.
    pub(crate) fn ready(&self) -> u32 {
        self.ready
    }

    /// How many of them were seen.
    pub(crate) fn seen(&self) -> u32 {
        self.seen
    }

    /// Also looks at what comes later.
    pub(crate) fn without_end(&mut self) {
        self.ready = u32::MAX;
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
        Ok(Some(Taken { letter: Letter::new(delivery.properties, delivery.data), acker: delivery.acker }))
    }

    /// Whether the message may be returned once more without coming near the queue's delivery limit.
    pub(crate) fn may_return(&self, taken: &Taken) -> bool {
        self.looks.allow_return_after(taken.letter.deliveries())
    }

    /// It goes back: in the end, or at once where it must not be counted again.
    pub(crate) async fn hold(&mut self, taken: Taken) -> Result<(), Trouble> {
        if self.may_return(&taken) {
            self.held = Some(taken.acker);
            return Ok(());
        }
        let giver = match &mut self.giver {
            Some(giver) => giver,
            None => self.giver.insert(Giver::open(self.operator).await?),
        };
        let properties = origin::renewed(&taken.letter);
        match giver.give(&Target::queue(&self.queue), properties, &taken.letter.body).await? {
            Given::Confirmed => self.ack(&taken).await,
            Given::Refused(reason) => {
                self.held = Some(taken.acker);
                Err(Trouble::Ended(Failure::unavailable(format_args!(
                    "`{}` counts how often it delivers a message, and a copy of one could not be published: {reason}; it is \
                     still there, and jm looks no further",
                    self.queue
                ))))
            }
        }
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
        if let Some(giver) = self.giver.take() {
            giver.close().await;
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
