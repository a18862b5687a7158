//! What becomes of one message that was put back.
//!
//! AMQP does not tell who has acked what. So the message says who wants to hear that it is done, and our workers tell
//! (see [`dead_letters::OUTCOME_TO`]). That it has failed again is seen in the dead-letter queue: there it is back, with
//! the replay's name in its headers. Of a message that is tried again and again, or that another program works on,
//! nothing is heard.

use std::time::Duration;

use futures_util::StreamExt as _;
use jm_mq_core::{ConnectError, Connection, FieldTable, dead_letters};
use lapin::{
    Acker, Channel, Consumer,
    options::{BasicConsumeOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::letter::Letter;
use crate::operator::Operator;

/// Between two looks into the dead-letter queue.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Dead letters that are looked through for one that is back. It comes last.
const MAX_LOOKED_AT: u32 = 200_000;

/// An ear for messages that are done, and an eye on the dead-letter queue.
#[derive(Debug)]
pub(crate) struct Canary {
    connection: Connection,
    /// Ends with its last handle, and with it the queue.
    _channel: Channel,
    outcomes: Consumer,
    outcome_queue: String,
    dead_letter_queue: String,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Fate {
    Done,
    /// It is a dead letter again.
    Back(Box<Letter>),
    Unknown,
}

impl Canary {
    pub(crate) async fn open(operator: &Operator<'_>, dead_letter_queue: &str) -> Result<Self, ConnectError> {
        let connection = Connection::open(&operator.broker, "canary").await?;
        let channel = connection.channel().await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare("".into(), options, FieldTable::default());
        let declared = connection.within("declaring a queue for outcomes", declare).await?;
        let queue = declared.map_err(|error| lost(&error))?.name().clone();
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consume = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
        let consuming = connection.within("listening for outcomes", consume).await?;
        let outcomes = consuming.map_err(|error| lost(&error))?;
        Ok(Self {
            connection,
            _channel: channel,
            outcomes,
            outcome_queue: queue.to_string(),
            dead_letter_queue: dead_letter_queue.to_owned(),
        })
    }

    /// Where the message's worker tells that it is done.
    pub(crate) fn outcome_queue(&self) -> &str {
        &self.outcome_queue
    }

    /// How many dead letters there are, but for those that somebody has in hand.
    pub(crate) async fn dead_letters(&self) -> Result<u32, ConnectError> {
        Ok(self.counts(&self.dead_letter_queue).await?.map_or(0, |(ready, _)| ready))
    }

    /// How many consumers a queue has; `None` if there is no such queue.
    pub(crate) async fn consumers(&self, queue: &str) -> Result<Option<u32>, ConnectError> {
        Ok(self.counts(queue).await?.map(|(_, consumers)| consumers))
    }

    async fn counts(&self, queue: &str) -> Result<Option<(u32, u32)>, ConnectError> {
        let channel = self.connection.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(queue.into(), options, FieldTable::default());
        let Ok(declared) = self.connection.within("counting a queue", declare).await? else { return Ok(None) };
        // It would stay open for as long as its connection.
        drop(self.connection.within("closing a channel", channel.close(200, "OK".into())).await?);
        Ok(Some((declared.message_count(), declared.consumer_count())))
    }

    /// Waits for the fate of the message with this replay's name. `before` is [`dead_letters`](Self::dead_letters) from
    /// before it was published: with more of them than that, it may be among them.
    pub(crate) async fn fate(&mut self, replay: &str, before: u32, limit: Duration) -> Result<Fate, ConnectError> {
        let mut search = Search::new(self.connection.channel().await?, &self.dead_letter_queue);
        let deadline = Instant::now() + limit;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let fate = loop {
            tokio::select! {
                biased;
                told = self.outcomes.next() => match told {
                    Some(Ok(delivery)) => {
                        let told = delivery.properties.correlation_id().as_ref().map(lapin::types::ShortString::as_str);
                        let is_outcome =
                            delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == dead_letters::OUTCOME_TYPE);
                        if is_outcome && told == Some(replay) {
                            break Fate::Done;
                        }
                    }
                    Some(Err(error)) => return Err(lost(&error)),
                    None => return Err(ConnectError::Lost("the broker deleted the queue for outcomes".into())),
                },
                _ = looks.tick() => {
                    let is_last = Instant::now() >= deadline;
                    if (is_last || search.has_begun() || self.dead_letters().await? > before)
                        && let Some(letter) = search.go_on(&self.connection, replay, deadline).await? {
                            break Fate::Back(Box::new(letter));
                    }
                    if is_last {
                        break Fate::Unknown;
                    }
                }
            }
        };
        search.end(&self.connection).await?;
        Ok(fate)
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}

/// Through the dead-letter queue from its front to its end, where what comes back arrives. What was looked at is held
/// until the end, so that each look goes on behind the one before.
struct Search<'a> {
    channel: Channel,
    queue: &'a str,
    held: Option<Acker>,
    looked_at: u32,
}

impl<'a> Search<'a> {
    fn new(channel: Channel, queue: &'a str) -> Self {
        Self { channel, queue, held: None, looked_at: 0 }
    }

    fn has_begun(&self) -> bool {
        self.held.is_some()
    }

    async fn go_on(
        &mut self,
        connection: &Connection,
        replay: &str,
        deadline: Instant,
    ) -> Result<Option<Letter>, ConnectError> {
        // A queue that fills as fast as it is read must not keep the canary from its deadline.
        let deadline = deadline + Duration::from_secs(10);
        while self.looked_at < MAX_LOOKED_AT {
            let get = self.channel.basic_get(self.queue.into(), BasicGetOptions::default());
            let Ok(got) = timeout_at(deadline, connection.within("getting a message", get)).await else { break };
            let Some(message) = got?.map_err(|error| lost(&error))? else { break };
            self.looked_at += 1;
            let delivery = message.delivery;
            self.held = Some(delivery.acker);
            let letter = Letter::new(delivery.properties, delivery.data);
            if letter.text(dead_letters::REPLAY).as_deref() == Some(replay) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    async fn end(self, connection: &Connection) -> Result<(), ConnectError> {
        if let Some(held) = self.held {
            let nack = held.nack(BasicNackOptions { multiple: true, requeue: true });
            connection.within("giving messages back", nack).await?.map_err(|error| lost(&error))?;
        }
        let closed = connection.within("closing a channel", self.channel.close(200, "OK".into())).await?;
        closed.map_err(|error| lost(&error))
    }
}

fn lost(error: &lapin::Error) -> ConnectError {
    ConnectError::Lost(error.to_string())
}
