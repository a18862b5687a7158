//! How many messages wait, and whether the broker still knows our consumers: asked of it, on a channel of its own.

use std::{fmt, time::Duration};

use lapin::{
    Channel,
    options::QueueDeclareOptions,
    types::{FieldTable, ShortString},
};

use super::Shared;
use crate::{broker::PooledConnection, metrics::QueueMetrics};

/// The queue has fewer consumers than this connection has registered.
#[derive(Debug)]
pub(super) struct Forgotten {
    known: u32,
    registered: usize,
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, registered } = self;
        write!(
            f,
            "the broker has forgotten consumers: the queue has {known}, and {registered} are registered here alone"
        )
    }
}

/// What is not refreshed any more is not known.
struct UnknownWhenDropped<'a>(&'a QueueMetrics);

impl Drop for UnknownWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.backlog(None);
    }
}

/// Keeps the backlog's gauges for as long as the connection lives, or until it is certain that the broker has forgotten
/// some of the consumers that were `registered` on it. Other processes' consumers may hide that.
pub(super) async fn watch(
    shared: &Shared,
    connection: &PooledConnection,
    queue: &ShortString,
    registered: usize,
) -> Forgotten {
    let _unknown = UnknownWhenDropped(&shared.metrics);
    let interval = shared.options.backlog_interval;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut channel = None;
    let mut missing = false;
    loop {
        if missing {
            tokio::time::sleep(interval / 2).await;
        } else {
            ticks.tick().await;
        }
        let answer = look(shared, &mut channel, connection, queue).await;
        let fewer = answer.filter(|&(_, consumers)| usize::try_from(consumers).is_ok_and(|known| known < registered));
        if let (Some((_, known)), true) = (fewer, missing) {
            return Forgotten { known, registered };
        }
        // A quorum queue between two leaders answers that it has nothing, so it is asked again before that counts.
        missing = fewer.is_some();
        shared.metrics.backlog(answer.filter(|_| !missing));
    }
}

/// Ready messages and consumers; `None` if the broker does not say.
async fn look(
    shared: &Shared,
    channel: &mut Option<Channel>,
    connection: &PooledConnection,
    queue: &ShortString,
) -> Option<(u32, u32)> {
    match tokio::time::timeout(shared.rpc_timeout, ask(channel, connection, queue)).await {
        Ok(Ok(answer)) => return Some(answer),
        // A missing queue closes the channel, and only the channel; the next round opens another one. The
        // subscriptions report whatever else is wrong.
        Ok(Err(error)) => tracing::debug!(queue = &*shared.queue, %error, "cannot ask for the backlog"),
        Err(_) => tracing::debug!(queue = &*shared.queue, "no answer about the backlog"),
    }
    *channel = None;
    None
}

async fn ask(
    channel: &mut Option<Channel>,
    connection: &PooledConnection,
    queue: &ShortString,
) -> lapin::Result<(u32, u32)> {
    let channel = match channel {
        Some(channel) => channel,
        None => channel.insert(connection.create_channel().await?),
    };
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.clone(), passive, FieldTable::default()).await?;
    Ok((found.message_count(), found.consumer_count()))
}

/// Keeps the age of the oldest unsettled delivery, connected or not.
pub(super) async fn watch_age(shared: std::sync::Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let oldest = shared.handoffs.iter().filter_map(|handoff| handoff.oldest()).min();
        shared.metrics.oldest_unacked.set(oldest.map_or(0.0, |arrived| arrived.elapsed().as_secs_f64()));
    }
}
