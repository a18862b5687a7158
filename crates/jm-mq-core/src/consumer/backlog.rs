//! How many messages wait: asked of the broker itself, on a channel of its own.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel,
    options::QueueDeclareOptions,
    types::{FieldTable, ShortString},
};

use super::Shared;
use crate::broker::PooledConnection;

/// Keeps the backlog's gauges for as long as the connection lives.
pub(super) async fn watch(shared: Arc<Shared>, connection: Arc<PooledConnection>, queue: ShortString) {
    let mut channel = None;
    let mut ticks = tokio::time::interval(shared.options.backlog_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = tokio::time::timeout(shared.rpc_timeout, ask(&mut channel, &connection, &queue)).await;
        match asked {
            Ok(Ok((ready, consumers))) => {
                shared.metrics.ready.set(f64::from(ready));
                shared.metrics.consumers.set(f64::from(consumers));
            }
            // A missing queue closes the channel, and only the channel; the next round opens another one. The
            // subscriptions report whatever else is wrong.
            Ok(Err(error)) => {
                channel = None;
                tracing::debug!(queue = &*shared.queue, %error, "cannot ask for the backlog");
            }
            Err(_) => channel = None,
        }
    }
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
pub(super) async fn watch_age(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let oldest = shared.handoffs.iter().filter_map(|handoff| handoff.oldest()).min();
        shared.metrics.oldest_unacked.set(oldest.map_or(0.0, |arrived| arrived.elapsed().as_secs_f64()));
    }
}
