//! A process that publishes, and records what it was told.

use std::{io::Write, sync::Arc, time::Duration};

use anyhow::Result;
use jm_mq_core::{Message, Outgoing, Publisher, PublisherOptions};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{Job, Pace, STANDING};
use crate::{
    history::{Log, What},
    message::{self, Deed, Id, TASK, UNKNOWN},
};

/// Ten batches a second: many messages on the way at once, and a steady flow.
const BATCH_EVERY: Duration = Duration::from_millis(100);

/// What a slow publisher's batches are divided by.
const SLOW: u64 = 20;

pub(super) async fn run(
    job: &Job,
    log: Arc<Log>,
    mut pace: watch::Receiver<Pace>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let publisher = Publisher::new(&super::broker(job)?, PublisherOptions::default())?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut ticks = tokio::time::interval(BATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The thousandth part of the rate, ten times a second.
    let per_second = u64::from(job.rate) * u64::from(job.part.size) / 1_000;
    let started = Instant::now();
    let (mut owed, mut last) = (0.0, started);
    let mut count = u64::from(job.process) << 24;
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            _ = ticks.tick() => {}
        }
        let share = match *pace.borrow_and_update() {
            Pace::Full => 1,
            Pace::Slow => SLOW,
            Pace::Held => {
                last = Instant::now();
                writeln!(std::io::stdout(), "{STANDING}")?;
                continue;
            }
        };
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a rate of some thousands")]
        let due = per_second as f64 / share as f64 * (now - last).as_secs_f64();
        last = now;
        // What was owed while nothing could be published is not made up for.
        #[expect(clippy::cast_precision_loss, reason = "a rate of some thousands")]
        let most = per_second as f64;
        owed = (owed + due).min(most);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count from 0 to some thousands")]
        let batch = owed as u64;
        #[expect(clippy::cast_precision_loss, reason = "a rate of some thousands")]
        {
            owed -= batch as f64;
        }
        if batch > 0 {
            publish(job, &publisher, &log, count..count + batch).await;
            count += batch;
        }
    }
    publisher.close().await;
    Ok(())
}

async fn publish(job: &Job, publisher: &Publisher, log: &Log, counts: std::ops::Range<u64>) {
    let queue = job.part.queue;
    let ids: Vec<Id> = counts.map(|count| Id::message(queue, job.slot, count)).collect();
    let batch: Vec<Outgoing> = ids
        .iter()
        .map(|&id| {
            let kind = if Deed::of(job.seed, id) == Deed::UnknownType { UNKNOWN } else { TASK };
            let message = Message::new(kind, message::body(job.seed, id)).message_id(&id.to_string());
            Outgoing::new(queue.name(), queue.name(), message)
        })
        .collect();
    log.add_all(ids.iter().map(|&id| What::Intended { id }));
    let results = publisher.publish_all(&batch).await;
    log.add_all(ids.iter().zip(results).map(|(&id, result)| match result {
        Ok(()) => What::Accepted { id },
        Err(_) => What::Unconfirmed { id },
    }));
}
