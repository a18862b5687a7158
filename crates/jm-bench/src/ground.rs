//! The broker that both sides meet, filled and emptied by the program itself.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::{Context, Result, bail};
use jm_mq_core::{Broker, BrokerOptions, Message, Outgoing, Publisher, PublisherOptions, Topology};
use jm_testkit::{RabbitNode, Vhost};

use crate::job::{Job, type_name};

/// Messages handed to one `publish_all`.
const BATCH: u64 = 5_000;
/// What the broker may take to count a queue that nobody uses any more.
const COUNTING: Duration = Duration::from_secs(30);

/// A private node with one virtual host, and a publisher to it.
pub(crate) struct Ground {
    pub(crate) node: RabbitNode,
    pub(crate) vhost: Vhost,
    publisher: Publisher,
    _broker: Broker,
}

impl Ground {
    pub(crate) async fn start() -> Result<Self> {
        let node = RabbitNode::start().await?;
        let vhost = node.vhost().await?;
        let broker = Broker::new(BrokerOptions::from_dsn(&vhost.uri())?)?;
        let options = PublisherOptions { timeout: Duration::from_mins(1), ..PublisherOptions::default() };
        let publisher = Publisher::new(&broker, options)?;
        Ok(Self { node, vhost, publisher, _broker: broker })
    }

    /// The broker's version.
    pub(crate) async fn version(&self) -> Result<String> {
        let version = self.node.eval("list_to_binary(rabbit_misc:version())").await?;
        Ok(version.trim_matches(['<', '>', '"']).to_owned())
    }

    /// Declares the queue and empties it.
    pub(crate) async fn clear(&self, queue: &str) -> Result<()> {
        self.publisher.declare(&Topology::work_queue(queue)).await?;
        self.vhost.wait_for_counts(queue, COUNTING, |counts| counts.unacked == 0).await?;
        self.vhost.purge_queue(queue).await?;
        Ok(())
    }

    /// Puts so many persistent messages into the job's queue, each confirmed.
    pub(crate) async fn fill(&self, job: &Job, messages: u64) -> Result<()> {
        let size = job.body_size as usize;
        // As JSON it is a string of that size.
        let body =
            if job.types == 0 { "x".repeat(size) } else { format!("\"{}\"", "x".repeat(size.saturating_sub(2))) };
        let body = Message::new("bench", body).body().clone();
        let types: Vec<String> = (0..job.types.max(1)).map(type_name).collect();
        let mut kinds = types.iter().cycle();
        let mut left = messages;
        while left > 0 {
            let count = left.min(BATCH).min(u64::from(LARGE_BATCH_BYTES / job.body_size.max(1)).max(1));
            let batch: Vec<Outgoing> = kinds
                .by_ref()
                .take(usize::try_from(count)?)
                .map(|kind| Outgoing::to_queue(&job.queue, Message::new(kind, body.clone())))
                .collect();
            for result in self.publisher.publish_all(&batch).await {
                result.context("could not fill the queue")?;
            }
            left -= count;
        }
        Ok(())
    }

    /// Checks that a run has left so many messages, and none that somebody holds.
    pub(crate) async fn expect(&self, queue: &str, ready: RangeInclusive<u64>) -> Result<()> {
        let counts = self.vhost.wait_for_counts(queue, COUNTING, |counts| counts.unacked == 0).await?;
        if !ready.contains(&counts.ready) {
            bail!("{} messages are in the queue in place of {ready:?}: the run did not do what it says", counts.ready);
        }
        Ok(())
    }
}

/// Bodies of one batch together, at most.
const LARGE_BATCH_BYTES: u32 = 64 * 1024 * 1024;
