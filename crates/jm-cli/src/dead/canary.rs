//! What becomes of one message that was put back.
//!
//! AMQP does not tell who has acked what. So the message says who wants to hear that it is done, and our workers tell
//! (see [`dead_letters::OUTCOME_TO`]). That it has failed again is seen in the dead-letter queue: there it is back, with
//! the replay's name in its headers. Of a message that is tried again and again, or that another program works on,
//! nothing is heard.

use std::time::Duration;

use jm_mq_core::{ConnectError, FieldTable, dead_letters};
use lapin::{options::QueueDeclareOptions, types::ShortString};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{
    glance::{Glance, Purpose, Trouble},
    letter::Letter,
};
use crate::{inbox::Inbox, operator::Operator};

/// Between two looks into the dead-letter queue.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Dead letters that are looked through for one that is back. It comes last.
const MAX_LOOKED_AT: u32 = 200_000;

/// An ear for messages that are done, and an eye on the dead-letter queue.
#[derive(Debug)]
pub(crate) struct Canary<'a> {
    operator: &'a Operator<'a>,
    outcomes: Inbox,
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

impl<'a> Canary<'a> {
    pub(crate) async fn open(operator: &'a Operator<'a>, dead_letter_queue: &str) -> Result<Self, Trouble> {
        let outcomes = Inbox::open(operator, "canary").await?;
        Ok(Self { operator, outcomes, dead_letter_queue: dead_letter_queue.to_owned() })
    }

    /// Where the message's worker tells that it is done.
    pub(crate) fn outcome_queue(&self) -> &str {
        self.outcomes.queue()
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
        let connection = self.outcomes.connection();
        let channel = connection.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare(queue.into(), options, FieldTable::default());
        let Ok(declared) = connection.within("counting a queue", declare).await? else { return Ok(None) };
        // It would stay open for as long as its connection.
        drop(connection.within("closing a channel", channel.close(200, "OK".into())).await?);
        Ok(Some((declared.message_count(), declared.consumer_count())))
    }

    /// Waits for the fate of the message with this replay's name. `before` is [`dead_letters`](Self::dead_letters) from
    /// before it was published: with more of them than that, it may be among them.
    pub(crate) async fn fate(&mut self, replay: &str, before: u32, limit: Duration) -> Result<Fate, Trouble> {
        let mut search = Search::new(self.operator, &self.dead_letter_queue);
        let deadline = Instant::now() + limit;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let fate = loop {
            tokio::select! {
                biased;
                told = self.outcomes.next() => {
                    let properties = told?.properties;
                    let is = |value: &Option<ShortString>, wanted: &str| value.as_ref().is_some_and(|value| value.as_str() == wanted);
                    if is(properties.kind(), dead_letters::OUTCOME_TYPE) && is(properties.correlation_id(), replay) {
                        break Fate::Done;
                    }
                }
                _ = looks.tick() => {
                    let is_last = Instant::now() >= deadline;
                    if (is_last || search.has_begun() || self.dead_letters().await? > before)
                        && let Some(letter) = search.go_on(replay, deadline).await? {
                            break Fate::Back(Box::new(letter));
                    }
                    if is_last {
                        break Fate::Unknown;
                    }
                }
            }
        };
        search.end().await?;
        Ok(fate)
    }

    pub(crate) async fn close(self) {
        self.outcomes.close().await;
    }
}

/// Through the dead-letter queue from its front to its end, where what comes back arrives. What was looked at is held
/// until the end, so that each look goes on behind the one before.
struct Search<'a> {
    operator: &'a Operator<'a>,
    queue: &'a str,
    glance: Option<Glance<'a>>,
}

impl<'a> Search<'a> {
    fn new(operator: &'a Operator<'a>, queue: &'a str) -> Self {
        Self { operator, queue, glance: None }
    }

    fn has_begun(&self) -> bool {
        self.glance.is_some()
    }

    async fn go_on(&mut self, replay: &str, deadline: Instant) -> Result<Option<Letter>, Trouble> {
        // A queue that fills as fast as it is read must not keep the canary from its deadline.
        let deadline = deadline + Duration::from_secs(10);
        let glance = if let Some(glance) = &mut self.glance {
            glance
        } else {
            let glance = self.glance.insert(Glance::open(self.operator, self.queue, Purpose::Choose).await?);
            glance.without_end();
            glance
        };
        while glance.seen() < MAX_LOOKED_AT {
            let Ok(next) = timeout_at(deadline, glance.next()).await else { break };
            let Some(taken) = next? else { break };
            let found =
                (taken.letter.text(dead_letters::REPLAY).as_deref() == Some(replay)).then(|| taken.letter.clone());
            glance.hold(taken).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn end(self) -> Result<(), ConnectError> {
        match self.glance {
            Some(glance) => glance.close().await,
            None => Ok(()),
        }
    }
}
