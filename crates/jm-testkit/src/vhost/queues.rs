//! The queues of a virtual host: declaring, counting, and taking away what the code under test relies on.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use lapin::ExchangeKind;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;

use super::Vhost;
use super::outsider::short;
use crate::limit::{until, within};
use crate::node::binary;

/// An operation on a queue takes milliseconds, unless the node is down or frozen.
const LIMIT: Duration = Duration::from_secs(10);

/// What is in a queue, and who takes from it, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Messages that a consumer has and has not settled.
    pub unacked: u64,
    /// Consumers.
    pub consumers: u64,
}

impl QueueCounts {
    /// Whether nothing is in the queue or out of it unsettled.
    pub fn is_empty(&self) -> bool {
        self.ready == 0 && self.unacked == 0
    }
}

impl Vhost {
    /// Declares a durable queue without arguments.
    pub async fn declare_queue(&self, queue: &str) -> Result<()> {
        self.declare_queue_with(queue, true, FieldTable::default()).await
    }

    /// Declares a queue with arguments.
    pub async fn declare_queue_with(&self, queue: &str, durable: bool, arguments: FieldTable) -> Result<()> {
        let kept = self.looking.channel().await?;
        let options = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
        let declare = kept.channel()?.queue_declare(short(queue)?, options, arguments);
        within(LIMIT, &format!("declare {}", self.of(queue)), declare).await.map(drop)
    }

    /// Declares a durable exchange without arguments.
    pub async fn declare_exchange(&self, exchange: &str, kind: ExchangeKind) -> Result<()> {
        let kept = self.looking.channel().await?;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declare = kept.channel()?.exchange_declare(short(exchange)?, kind, options, FieldTable::default());
        within(LIMIT, &format!("declare exchange {exchange:?} of virtual host {:?}", self.name), declare).await
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        let kept = self.looking.channel().await?;
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bind = kept.channel()?.queue_bind(short(queue)?, short(exchange)?, short(key)?, options, arguments);
        within(LIMIT, &format!("bind {} to {exchange:?} with {key:?}", self.of(queue)), bind).await
    }

    /// Removes a binding.
    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        let kept = self.looking.channel().await?;
        let arguments = FieldTable::default();
        let unbind = kept.channel()?.queue_unbind(short(queue)?, short(exchange)?, short(key)?, arguments);
        within(LIMIT, &format!("unbind {} from {exchange:?} with {key:?}", self.of(queue)), unbind).await
    }

    /// Deletes a queue with its messages, from under its consumers if it has any. Returns how many messages were ready.
    pub async fn delete_queue(&self, queue: &str) -> Result<u32> {
        let kept = self.looking.channel().await?;
        let delete = kept.channel()?.queue_delete(short(queue)?, QueueDeleteOptions::default());
        within(LIMIT, &format!("delete {}", self.of(queue)), delete).await
    }

    /// Removes the ready messages of a queue, and returns how many.
    pub async fn purge_queue(&self, queue: &str) -> Result<u32> {
        let kept = self.looking.channel().await?;
        let purge = kept.channel()?.queue_purge(short(queue)?, QueuePurgeOptions::default());
        within(LIMIT, &format!("purge {}", self.of(queue)), purge).await
    }

    /// Deletes an exchange with its bindings.
    pub async fn delete_exchange(&self, exchange: &str) -> Result<()> {
        let kept = self.looking.channel().await?;
        let delete = kept.channel()?.exchange_delete(short(exchange)?, ExchangeDeleteOptions::default());
        within(LIMIT, &format!("delete exchange {exchange:?} of virtual host {:?}", self.name), delete).await
    }

    /// Whether the queue exists.
    pub async fn queue_exists(&self, queue: &str) -> Result<bool> {
        Ok(self.counts(queue).await?.is_some())
    }

    /// What is in the queue now, from the queue itself: the broker's statistics lag by seconds.
    /// Fails when the queue does not exist.
    pub async fn queue_counts(&self, queue: &str) -> Result<QueueCounts> {
        self.counts(queue).await?.ok_or_else(|| anyhow!("{} does not exist", self.of(queue)))
    }

    /// Waits until the queue's counts are as wanted, and returns them. A queue that does not exist yet is waited for.
    /// After `limit` the error shows the counts last seen.
    pub async fn wait_for_counts(
        &self,
        queue: &str,
        limit: Duration,
        want: impl Fn(&QueueCounts) -> bool,
    ) -> Result<QueueCounts> {
        let (what, want) = (format!("the wanted counts of {}", self.of(queue)), &want);
        until(limit, &what, || async move {
            Ok(match self.counts(queue).await? {
                Some(counts) if want(&counts) => Ok(counts),
                Some(counts) => Err(format!("{counts:?}")),
                None => Err("no such queue".to_owned()),
            })
        })
        .await
    }

    async fn counts(&self, queue: &str) -> Result<Option<QueueCounts>> {
        // A classic queue answers from its process. A quorum queue's info comes from statistics, its log does not.
        let expression = format!(
            "Quorum = fun(Pid, Query) ->
                 {{ok, {{_, Count}}, _}} = ra:leader_query(Pid, {{rabbit_fifo, Query, []}}), Count end,
             case rabbit_amqqueue:lookup({{resource, {vhost}, queue, {queue}}}) of
                 {{error, not_found}} -> none;
                 {{ok, Queue}} ->
                     case amqqueue:get_type(Queue) of
                         rabbit_quorum_queue ->
                             Pid = amqqueue:get_pid(Queue),
                             [Quorum(Pid, query_messages_ready),
                              Quorum(Pid, query_messages_checked_out),
                              Quorum(Pid, query_consumer_count)];
                         _ ->
                             Keys = [messages_ready, messages_unacknowledged, consumers],
                             [Count || {{_, Count}} <- rabbit_amqqueue:info(Queue, Keys)]
                     end
             end",
            vhost = binary(&self.name),
            queue = binary(queue),
        );
        let what = || format!("could not count {}", self.of(queue));
        // Printed as numbers: a list of small ones would be printed as a text.
        let expression = format!("case begin {expression} end of none -> none; List -> list_to_tuple(List) end");
        let printed = self.erlang().eval(&expression).await.with_context(what)?;
        if printed == "none" {
            return Ok(None);
        }
        let numbers: Vec<u64> =
            printed.trim_matches(['{', '}']).split(',').filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [ready, unacked, consumers] => Ok(Some(QueueCounts { ready, unacked, consumers })),
            _ => bail!("{} answered {printed} instead of three counts", self.of(queue)),
        }
    }
}
