//! One queue's line.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jm_mq_core::Connection;
use serde::Serialize;

use super::oldest::{Oldest, oldest};
use crate::{
    amqp::{self, Count},
    configuration::ConfiguredWorker,
    delivery_limit::looks,
    failure::Failure,
    management::{Management, QueueInfo},
    output::{Cell, age},
};

/// A queue with its dead letters. The keys are for programs: they stay. `null` is what is not known.
#[derive(Debug, Serialize)]
pub(super) struct QueueStatus {
    queue: String,
    worker: &'static str,
    exists: bool,
    ready: Option<u32>,
    unacked: Option<u64>,
    consumers: Option<u32>,
    publish_rate: Option<f64>,
    ack_rate: Option<f64>,
    dead_letter_queue: String,
    /// The worker keeps its dead letters there, and it does not exist.
    #[serde(skip)]
    is_dead_letter_queue_missing: bool,
    dead_letters: Option<u32>,
    oldest_dead_letter: Option<Oldest>,
}

/// What was seen at the head of dead-letter queues, and how many messages were there then: a queue in which nothing has
/// changed is not looked into again.
#[derive(Debug, Default)]
pub(super) struct Looks {
    queues: BTreeMap<String, Look>,
    /// Why publishers are blocked, as AMQP alone told it.
    #[expect(clippy::option_option, reason = "not asked for yet, or the answer, which may be that they are not")]
    pub(super) blocked: Option<Option<String>>,
}

#[derive(Debug)]
struct Look {
    count: u32,
    oldest: Option<Oldest>,
    /// Why there was none.
    note: Option<String>,
}

impl QueueStatus {
    pub(super) async fn look(
        worker: &ConfiguredWorker,
        connection: &Connection,
        management: Option<&Management>,
        looks: &mut Looks,
        notes: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let queue = worker.queue().to_owned();
        let told = told(management, &queue, notes).await;
        let counted = amqp::count(connection, &queue).await?;
        let (exists, counts) = either(&queue, counted, &told, notes);
        let told = match told {
            Told::Of(told) => Some(*told),
            Told::Nothing | Told::Absent => None,
        };
        let dead_letter_queue = worker.dead_letter_queue();
        let dead = amqp::count(connection, &dead_letter_queue).await?;
        let dead_told = match dead {
            Count::Refused(_) => self::told(management, &dead_letter_queue, notes).await,
            Count::Of { .. } | Count::Absent => Told::Nothing,
        };
        // Who may not ask for a queue may not ask for its dead letters either: one note is enough.
        let (dead_exists, dead) = either(&dead_letter_queue, dead, &dead_told, &mut Vec::new());
        let is_dead_letter_queue_missing = exists && worker.keeps_dead_letters() && !dead_exists;
        let dead_letters = dead.map(|(ready, _)| ready);
        let oldest_dead_letter = match dead_letters {
            Some(count) if count > 0 => looks.look(connection, management, &dead_letter_queue, count, notes).await?,
            _ => None,
        };
        Ok(Self {
            queue,
            worker: worker.worker.name,
            exists,
            ready: counts.map(|(ready, _)| ready),
            unacked: told.as_ref().and_then(|told| told.messages_unacknowledged),
            consumers: counts.map(|(_, consumers)| consumers),
            publish_rate: told.as_ref().map(QueueInfo::publish_rate),
            ack_rate: told.as_ref().map(QueueInfo::ack_rate),
            dead_letter_queue,
            is_dead_letter_queue_missing,
            dead_letters,
            oldest_dead_letter,
        })
    }

    /// What needs an operator.
    pub(super) fn problems(&self) -> Vec<String> {
        let Self { queue, worker, dead_letter_queue, .. } = self;
        let mut problems = Vec::new();
        let missing = |name: &String| {
            format!("{name}: does not exist; {worker} creates it when it starts, `jm topology apply` now")
        };
        if !self.exists {
            problems.push(missing(queue));
        }
        if self.is_dead_letter_queue_missing {
            problems.push(missing(dead_letter_queue));
        }
        if let (Some(ready @ 1..), Some(0)) = (self.ready, self.consumers) {
            problems.push(format!("{queue}: {ready} ready and no consumer; start {worker}"));
        }
        problems
    }

    /// For people.
    pub(super) fn cells(&self, now: Timestamp) -> Vec<Cell> {
        fn known(value: Option<impl ToString>) -> Cell {
            value.map_or_else(Cell::none, |value| Cell::new(value.to_string()))
        }
        let rate = |rate: Option<f64>| known(rate.map(|rate| format!("{rate:.1}")));
        vec![
            Cell::new(&self.queue),
            if self.exists { known(self.ready) } else { Cell::bad("missing") },
            known(self.unacked),
            match self.consumers {
                Some(0) if self.ready.is_some_and(|ready| ready > 0) => Cell::bad("0"),
                consumers => known(consumers),
            },
            rate(self.publish_rate),
            rate(self.ack_rate),
            match self.dead_letters {
                Some(count) if count > 0 => Cell::notice(count.to_string()),
                None if self.is_dead_letter_queue_missing => Cell::bad("missing"),
                count => known(count),
            },
            known(self.oldest_dead_letter.as_ref().map(|oldest| age(oldest.at, now))),
        ]
    }
}

/// What the management API tells of a queue.
enum Told {
    /// Nothing: it is not asked, or does not answer.
    Nothing,
    /// There is no such queue.
    Absent,
    Of(Box<QueueInfo>),
}

async fn told(management: Option<&Management>, queue: &str, notes: &mut Vec<String>) -> Told {
    let Some(management) = management else { return Told::Nothing };
    match management.queue(queue).await {
        Ok(Some(told)) => Told::Of(Box::new(told)),
        Ok(None) => Told::Absent,
        Err(untold) => {
            // The same for each queue: once is enough.
            let note = untold.to_string();
            if !notes.contains(&note) {
                notes.push(note);
            }
            Told::Nothing
        }
    }
}

/// Whether a queue exists, with its ready messages and consumers. From RabbitMQ 4.2.6 on AMQP tells them only to users with a
/// permission on the queue; the management API tells them to all who may look.
fn either(queue: &str, counted: Count, told: &Told, notes: &mut Vec<String>) -> (bool, Option<(u32, u32)>) {
    match (counted, told) {
        (Count::Of { ready, consumers }, _) => (true, Some((ready, consumers))),
        (Count::Absent, _) | (Count::Refused(_), Told::Absent) => (false, None),
        (Count::Refused(_), Told::Of(told)) => (true, told.counts()),
        (Count::Refused(refusal), Told::Nothing) => {
            notes.push(format!("{queue}: {}", refusal.text));
            (true, None)
        }
    }
}

impl Looks {
    async fn look(
        &mut self,
        connection: &Connection,
        management: Option<&Management>,
        queue: &str,
        count: u32,
        notes: &mut Vec<String>,
    ) -> Result<Option<Oldest>, Failure> {
        let is_unchanged = self.queues.get(queue).is_some_and(|look| look.count == count);
        if !is_unchanged {
            let look = Look::new(connection, management, queue, count).await?;
            self.queues.insert(queue.to_owned(), look);
        }
        let look = self.queues.get(queue);
        notes.extend(look.and_then(|look| look.note.clone()));
        Ok(look.and_then(|look| look.oldest.clone()))
    }
}

impl Look {
    async fn new(
        connection: &Connection,
        management: Option<&Management>,
        queue: &str,
        count: u32,
    ) -> Result<Self, Failure> {
        Ok(match looks(connection, management, queue).await?.objection(queue) {
            None => Self { count, oldest: oldest(connection, queue).await?, note: None },
            Some(objection) => {
                Self { count, oldest: None, note: Some(format!("oldest is not looked at: {objection}")) }
            }
        })
    }
}
