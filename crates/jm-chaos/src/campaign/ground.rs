//! The broker that a campaign stands on: its nodes, its virtual host, its queues.

use std::time::Duration;

use anyhow::{Result, bail};
use jm_mq_core::{AMQPValue, FieldTable};
use jm_testkit::{QueueCounts, RabbitNode, Vhost};
use tokio::time::{Instant, timeout};

use crate::message::Queue;

/// A look at all queues. A node that does not answer by then is down or frozen.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Between looks.
const POLL: Duration = Duration::from_millis(50);

/// The broker.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) nodes: Vec<RabbitNode>,
    /// The virtual host, as each node has it.
    views: Vec<Vhost>,
}

/// All queues' ready and unacked messages and consumers, by the broker's own statistics.
pub(crate) type Backlog = Vec<(Queue, QueueCounts)>;

impl Ground {
    pub(crate) async fn prepare(brokers: u8) -> Result<Self> {
        if brokers != 1 {
            bail!("a campaign stands on 1 or on 3 brokers, not on {brokers}");
        }
        let node = RabbitNode::builder().start().await?;
        let vhost = node.vhost().await?;
        let ground = Self { nodes: vec![node], views: vec![vhost] };
        ground.declare_quorum(Queue::Poison).await?;
        Ok(ground)
    }

    /// Whether all queues are declared here, and none by the core.
    pub(crate) fn declared(&self) -> bool {
        self.nodes.len() > 1
    }

    pub(crate) fn vhost(&self) -> &Vhost {
        &self.views[0]
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(RabbitNode::port).collect()
    }

    /// As operators do for quorum queues: exchange, queue, binding, and the queue for dead letters.
    async fn declare_quorum(&self, queue: Queue) -> Result<()> {
        let quorum = || {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments
        };
        let vhost = self.vhost();
        vhost.declare_exchange(queue.name(), lapin::ExchangeKind::Direct).await?;
        vhost.declare_queue_with(queue.name(), true, quorum()).await?;
        vhost.declare_queue_with(&queue.dead(), true, quorum()).await?;
        vhost.bind(queue.name(), queue.name(), queue.name()).await
    }

    pub(crate) async fn counts(&self, queue: &str) -> Result<QueueCounts> {
        self.vhost().queue_counts(queue).await
    }

    pub(crate) async fn take_all(&self, queue: &str) -> Result<Vec<lapin::message::Delivery>> {
        self.vhost().take_all(queue).await
    }

    /// Waits until every queue has a consumer.
    pub(crate) async fn wait_for_consumers(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let backlog = self.backlog().await.unwrap_or_default();
            let without = |queue: &Queue| !backlog.iter().any(|(known, counts)| known == queue && counts.consumers > 0);
            let missing: Vec<&str> =
                Queue::ALL.iter().filter(|queue| without(queue)).map(|queue| queue.name()).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("no consumer within {limit:?} on {}", missing.join(", "));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What is in the queues, as the first node that answers knows it.
    pub(crate) async fn backlog(&self) -> Result<Backlog> {
        let expression = "[begin {resource, _, queue, Name} = amqqueue:get_name(Queue),
                Infos = (catch rabbit_amqqueue:info(Queue, [messages_ready, messages_unacknowledged, consumers])),
                Count = fun(Key) -> case is_list(Infos) andalso lists:keyfind(Key, 1, Infos) of
                    {_, Number} when is_integer(Number) -> integer_to_list(Number); _ -> \"0\" end end,
                lists:flatten([binary_to_list(Name), \" \", Count(messages_ready), \" \",
                    Count(messages_unacknowledged), \" \", Count(consumers), \";\"])
            end || Queue <- rabbit_amqqueue:list()]";
        for node in &self.nodes {
            if node.pid().is_none() {
                continue;
            }
            if let Ok(Ok(printed)) = timeout(LOOK_LIMIT, node.eval(expression)).await {
                return Ok(parse(&printed));
            }
        }
        bail!("no node answers")
    }
}

/// Reads `["chaos.work 1 2 3;","…"]`.
fn parse(printed: &str) -> Backlog {
    let entries = printed.split(['"', ';']).filter_map(|entry| {
        let mut words = entry.split_whitespace();
        let (queue, dead) = Queue::named(words.next()?)?;
        let mut number = || words.next()?.parse().ok();
        let counts = QueueCounts { ready: number()?, unacked: number()?, consumers: number()? };
        (!dead).then_some((queue, counts))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_console_prints_is_read() {
        let backlog = parse("[\"chaos.work 1 2 3;\",\n \"chaos.work.dead 9 0 0;\",\"other 1 1 1;\"]");
        assert_eq!(backlog, [(Queue::Work, QueueCounts { ready: 1, unacked: 2, consumers: 3 })]);
    }
}
