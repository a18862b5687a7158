//! One queue's line.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jm_mq_core::Connection;
use serde::Serialize;

use super::oldest::{Oldest, oldest};
use crate::{
    amqp::{self, Count},
    configuration::ConfiguredWorker,
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
    dead_letters: Option<u32>,
    oldest_dead_letter: Option<Oldest>,
}

/// What was seen at the head of dead-letter queues, and how many messages were there then: a queue in which nothing has
/// changed is not looked into again.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<String, Look>);

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
        let (exists, counts) = match amqp::count(connection, &queue).await? {
            Count::Of { ready, consumers } => (true, Some((ready, consumers))),
            Count::Absent => (false, None),
            Count::Refused(refusal) => {
                notes.push(format!("{queue}: {}", refusal.text));
                (true, None)
            }
        };
        let told = told(management, &queue, notes).await;
        let dead_letter_queue = worker.dead_letter_queue();
        let dead_letters = match amqp::count(connection, &dead_letter_queue).await? {
            Count::Of { ready, .. } => Some(ready),
            Count::Absent | Count::Refused(_) => None,
        };
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
            dead_letters,
            oldest_dead_letter,
        })
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
                Some(0) if self.ready.is_some_and(|ready| ready > 0) => Cell::bad(0),
                consumers => known(consumers),
            },
            rate(self.publish_rate),
            rate(self.ack_rate),
            match self.dead_letters {
                Some(count) if count > 0 => Cell::notice(count),
                count => known(count),
            },
            known(self.oldest_dead_letter.as_ref().map(|oldest| age(oldest.at, now))),
        ]
    }
}

async fn told(management: Option<&Management>, queue: &str, notes: &mut Vec<String>) -> Option<QueueInfo> {
    match management?.queue(queue).await {
        Ok(told) => told,
        Err(untold) => {
            // The same for each queue: once is enough.
            let note = untold.to_string();
            if !notes.contains(&note) {
                notes.push(note);
            }
            None
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
        let is_unchanged = self.0.get(queue).is_some_and(|look| look.count == count);
        if !is_unchanged {
            let look = Look::new(connection, management, queue, count, notes).await?;
            self.0.insert(queue.to_owned(), look);
        }
        let look = self.0.get(queue);
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
        notes: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let of_management = told(management, queue, notes).await.and_then(|told| told.kind);
        let kind = match of_management {
            Some(kind) => Some(kind),
            None => amqp::queue_type(connection, amqp::short(queue)?).await?,
        };
        // A quorum queue counts the look as a delivery, and beyond its limit drops the message.
        if kind.as_deref() == Some("classic") {
            return Ok(Self { count, oldest: oldest(connection, queue).await?, note: None });
        }
        let kind = kind.as_deref().unwrap_or("of a type that the broker does not tell");
        let note = format!("{queue} is {kind}: its oldest message is left alone, since looks may be counted");
        Ok(Self { count, oldest: None, note: Some(note) })
    }
}
