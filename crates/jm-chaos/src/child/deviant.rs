//! Workers written with plain lapin that do one thing wrong: the checker has to find each of them, and to find nothing
//! against the one that does all of it right.

use std::{io::Write, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
        BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use serde::{Deserialize, Serialize};

use super::Job;
use crate::{
    history::{Log, Outcome, What},
    message::{self, Id, Queue, TASK},
};

/// What a worker does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deviation {
    /// Nothing: the worker that the others are compared with.
    None,
    /// It acks before its handler has run.
    AckFirst,
    /// It forgets to hand back what it could not do.
    NackDropped,
    /// It acks without the confirm of its answer.
    AnswerUnconfirmed,
    /// It settles on a new channel what came by another.
    SettledElsewhere,
    /// It leaves without handing back what it had not begun.
    BufferForgotten,
    /// It prints where it connects, with its password.
    PasswordTold,
}

/// Work takes some time, so that there is a buffer to forget.
const WORK: Duration = Duration::from_millis(12);
const PREFETCH: u16 = 10;
/// Of so many messages one cannot be done the first time.
const FAILS: u64 = 20;

struct Deviant<'a> {
    job: &'a Job,
    deviation: Deviation,
    log: Arc<Log>,
    consuming: Channel,
    answering: Channel,
    /// Where [`Deviation::SettledElsewhere`] settles.
    elsewhere: Channel,
}

pub(super) async fn run(
    job: &Job,
    deviation: Deviation,
    log: Arc<Log>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let port = job.ports.first().context("no node")?;
    let uri = format!("amqp://{}:{}@127.0.0.1:{port}/{}", job.user, job.password, job.vhost);
    if deviation == Deviation::PasswordTold {
        writeln!(std::io::stdout(), "connecting to {uri}")?;
    }
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    // In confirm mode, and on a connection of its own, as it should be.
    let publishing = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let answering = publishing.create_channel().await?;
    answering.confirm_select(ConfirmSelectOptions::default()).await?;
    let (consuming, elsewhere) = (connection.create_channel().await?, connection.create_channel().await?);
    let queue = job.part.queue;
    declare(&consuming, queue).await?;
    consuming.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let deliveries = consuming
        .basic_consume(queue.name().into(), "deviant".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let deviant = Deviant { job, deviation, log, consuming, answering, elsewhere };
    deviant.consume(deliveries, shutdown).await?;
    connection.close(200, "OK".into()).await?;
    publishing.close(200, "OK".into()).await?;
    Ok(())
}

async fn declare(channel: &Channel, queue: Queue) -> Result<()> {
    let (name, durable) = (queue.name(), QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() });
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Direct, exchange, FieldTable::default()).await?;
    for name in [name, &queue.dead()] {
        channel.queue_declare(name.into(), durable, FieldTable::default()).await?;
    }
    channel
        .queue_bind(name.into(), name.into(), name.into(), QueueBindOptions::default(), FieldTable::default())
        .await?;
    Ok(())
}

impl Deviant<'_> {
    async fn consume(&self, mut deliveries: Consumer, shutdown: impl Future<Output = ()>) -> Result<()> {
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                delivery = deliveries.next() => match delivery {
                    Some(delivery) => self.work(delivery?).await?,
                    None => return Ok(()),
                },
            }
        }
        self.consuming.basic_cancel("deviant".into(), BasicCancelOptions::default()).await?;
        if self.deviation != Deviation::BufferForgotten {
            while let Some(Ok(delivery)) = deliveries.next().await {
                delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
            }
        }
        Ok(())
    }

    async fn work(&self, delivery: Delivery) -> Result<()> {
        let id = delivery.properties.message_id().as_ref().map_or(Id::FOREIGN, |id| Id::parse(id.as_str()));
        if self.deviation == Deviation::AckFirst {
            self.ack(&delivery).await?;
        }
        let process = self.job.process;
        self.log.add(What::RunBegan { process, id, attempt: 1 });
        tokio::time::sleep(WORK).await;
        let fails = !delivery.redelivered && id.count().is_multiple_of(FAILS);
        let outcome = if fails { Outcome::Retryable } else { Outcome::Done };
        self.log.add(What::RunEnded { process, id, outcome });
        if fails && self.deviation != Deviation::AckFirst {
            if self.deviation != Deviation::NackDropped {
                delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
            }
            return Ok(());
        }
        self.answer(id).await?;
        if self.deviation != Deviation::AckFirst {
            self.ack(&delivery).await?;
        }
        Ok(())
    }

    async fn ack(&self, delivery: &Delivery) -> Result<()> {
        if self.deviation == Deviation::SettledElsewhere {
            self.elsewhere.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
        } else {
            delivery.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    async fn answer(&self, id: Id) -> Result<()> {
        let answer = id.answer();
        let properties = BasicProperties::default()
            .with_message_id(answer.to_string().into())
            .with_type(TASK.into())
            .with_delivery_mode(2);
        let (to, body) = (Queue::Done.name(), message::body(self.job.seed, answer));
        let confirm = self
            .answering
            .basic_publish(to.into(), to.into(), BasicPublishOptions::default(), &body, properties)
            .await?;
        if self.deviation != Deviation::AnswerUnconfirmed {
            confirm.await?;
        }
        Ok(())
    }
}
