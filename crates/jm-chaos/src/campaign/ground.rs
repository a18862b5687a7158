//! The broker that a campaign stands on: its nodes, its virtual host, its queues.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use jm_mq_core::{AMQPValue, FieldTable};
use jm_testkit::{Canary, LeakSearch, QueueCounts, RabbitNode, Vhost};
use tokio::time::{Instant, timeout};

use crate::{message::Queue, plan::Setting};

/// A look at all queues. A node that does not answer by then is down or frozen.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Between looks.
const POLL: Duration = Duration::from_millis(50);

/// The broker.
#[derive(Debug)]
pub struct Ground {
    pub(crate) nodes: Arc<[RabbitNode]>,
    /// The virtual host, as each node has it.
    views: Vec<Vhost>,
    /// Whether all queues are declared here, and none by the core.
    pub(crate) declared: bool,
}

/// All queues' ready and unacked messages and consumers, by the broker's own statistics.
pub(crate) type Backlog = Vec<(Queue, QueueCounts)>;

impl Ground {
    /// Starts the nodes, as one cluster.
    pub async fn prepare(setting: Setting) -> Result<Self> {
        let first = RabbitNode::builder().start().await?;
        let mut nodes = Vec::with_capacity(setting.brokers.into());
        for _ in 1..setting.brokers {
            nodes.push(RabbitNode::builder().join(&first)?.start().await?);
        }
        nodes.insert(0, first);
        Self::on(nodes.into(), setting.quorum).await
    }

    /// The same nodes, with a virtual host of its own.
    pub async fn another(&self) -> Result<Self> {
        Self::on(Arc::clone(&self.nodes), self.declared).await
    }

    async fn on(nodes: Arc<[RabbitNode]>, declared: bool) -> Result<Self> {
        let vhost = nodes[0].vhost().await?;
        let views = nodes.iter().map(|node| node.view_of(&vhost)).collect();
        let ground = Self { nodes, views, declared };
        for queue in Queue::ALL {
            if declared || queue == Queue::Poison {
                ground.declare_quorum(queue).await?;
            }
        }
        Ok(ground)
    }

    /// A search for the secrets that were made up for this ground: the password of the virtual host's users, and the
    /// cookie by which the nodes know each other.
    pub(crate) fn leak_search(&self) -> Result<LeakSearch> {
        let mut secrets = vec![Canary::of("the broker's password", &self.vhost().password)];
        for node in &*self.nodes {
            let file = node.folder().join("home/.erlang.cookie");
            let cookie = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
            secrets.push(Canary::of(&format!("the cookie of {}", node.name()), &cookie));
        }
        Ok(LeakSearch::of(secrets))
    }

    /// Leaves what the nodes have logged, as `broker-<node>.log`.
    pub(crate) fn leave_logs(&self, folder: &Path) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let file = folder.join(format!("broker-{number}.log"));
            fs::write(&file, node.log()?).with_context(|| format!("could not write {}", file.display()))?;
        }
        Ok(())
    }

    /// The node that leads a quorum queue.
    pub(crate) async fn leader_of(&self, queue: Queue) -> Result<&RabbitNode> {
        let expression = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup({{resource, <<\"{}\">>, queue, <<\"{}\">>}}), \
             {{_, Node}} = amqqueue:get_pid(Queue), Node",
            self.vhost().name,
            queue.name()
        );
        let leader = self.nodes[0].eval(&expression).await?;
        let leads = |node: &&RabbitNode| leader.trim_matches('\'') == node.name();
        self.nodes.iter().find(leads).with_context(|| format!("{leader} leads {} and is no node", queue.name()))
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

    /// What is in a queue now, by the first node that answers.
    pub(crate) async fn counts(&self, queue: &str) -> Result<QueueCounts> {
        let mut failure = None;
        for view in &self.views {
            match view.queue_counts(queue).await {
                Ok(counts) => return Ok(counts),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("there is no node")?)
    }

    pub(crate) async fn take_all(&self, queue: &str) -> Result<Vec<lapin::message::Delivery>> {
        let mut failure = None;
        for view in &self.views {
            match view.take_all(queue).await {
                Ok(taken) => return Ok(taken),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("there is no node")?)
    }

    /// Waits until each of these queues has a consumer.
    pub(crate) async fn wait_for_consumers(&self, queues: &[Queue], limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let backlog = self.backlog().await.unwrap_or_default();
            let without = |queue: &Queue| !backlog.iter().any(|(known, counts)| known == queue && counts.consumers > 0);
            let missing: Vec<&str> = queues.iter().filter(|queue| without(queue)).map(|queue| queue.name()).collect();
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
        // A quorum queue's own numbers are its leader's: what other nodes have are statistics, and late.
        let expression = format!(
            "Quorum = fun(Pid, Query) ->
                 case catch ra:leader_query(Pid, {{rabbit_fifo, Query, []}}, 500) of {{ok, {{_, Count}}, _}} -> Count; _ -> 0 end end,
             Counts = fun(Queue) -> case amqqueue:get_type(Queue) of
                 rabbit_quorum_queue ->
                     Pid = amqqueue:get_pid(Queue),
                     [Quorum(Pid, Query) || Query <-
                         [query_messages_ready, query_messages_checked_out, query_consumer_count]];
                 _ ->
                     case catch rabbit_amqqueue:info(Queue, [messages_ready, messages_unacknowledged, consumers]) of
                         [_, _, _] = Infos -> [Count || {{_, Count}} <- Infos];
                         _ -> [0, 0, 0]
                     end
                 end end,
             [begin {{resource, _, queue, Name}} = amqqueue:get_name(Queue),
                 lists:flatten([binary_to_list(Name), [[\" \", integer_to_list(Count)] || Count <- Counts(Queue)], \";\"])
             end || Queue <- rabbit_amqqueue:list(<<\"{}\">>)]",
            self.vhost().name
        );
        for node in &*self.nodes {
            if node.pid().is_none() {
                continue;
            }
            if let Ok(Ok(printed)) = timeout(LOOK_LIMIT, node.eval(&expression)).await {
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
