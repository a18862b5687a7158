//! The works, done with lapin alone: the loop a careful engineer writes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use uuid::Uuid;

use crate::{
    job::{Job, Outcome, Work, type_name},
    meter::{Latencies, Meter},
    usage,
};

/// Unconfirmed messages at a time; larger ones gain nothing.
const WINDOW: usize = 512;
const PERSISTENT: u8 = 2;

pub(crate) async fn run(job: &Job) -> Result<Outcome> {
    let cpu = usage::cpu_seconds()?;
    let connection = Connection::connect(&job.uri, ConnectionProperties::default()).await?;
    let took = match job.work {
        Work::Consume => consume(job, &connection).await?,
        Work::Publish => publish(job, &connection).await?,
        Work::PublishOne => publish_one(job, &connection).await?,
        Work::PublishChannelEach => publish_channel_each(job, &connection).await?,
        Work::Latency => return latency(job, &connection, cpu).await,
        Work::Reconnect => bail!("the plain loop does not reconnect"),
    };
    end(&connection).await;
    Outcome::of(took, cpu)
}

/// Handles a message. Without types that is nothing; with types its body is read as its type says.
type Handle = Arc<dyn Fn(&lapin::message::Delivery) -> Result<()> + Send + Sync>;

/// A channel for each worker, prefetch, and an ack for each message.
async fn start_workers(job: &Job, connection: &Connection, handle: &Handle) -> Result<JoinSet<Result<()>>> {
    let mut workers = JoinSet::new();
    for n in 0..job.workers {
        let channel = connection.create_channel().await?;
        channel.basic_qos(job.prefetch, BasicQosOptions::default()).await?;
        let tag = format!("plain.{n}").into();
        let mut deliveries = channel
            .basic_consume(job.queue.as_str().into(), tag, BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        let handle = Arc::clone(handle);
        workers.spawn(async move {
            // Kept as long as its consumer.
            let _channel = channel;
            while let Some(delivery) = deliveries.next().await {
                let delivery = delivery?;
                handle(&delivery)?;
                delivery.ack(BasicAckOptions::default()).await?;
            }
            Ok(())
        });
    }
    Ok(workers)
}

async fn consume(job: &Job, connection: &Connection) -> Result<Duration> {
    let meter = Meter::new(job.messages);
    let counted = meter.clone();
    let types: HashMap<String, u16> = (0..job.types).map(|n| (type_name(n), n)).collect();
    let handle: Handle = Arc::new(move |delivery| {
        if !types.is_empty() {
            let kind = delivery.properties.kind().as_ref().context("a message without a type")?;
            types.get(kind.as_str()).context("a message of an unknown type")?;
            let _task: String = serde_json::from_slice(&delivery.data)?;
        }
        counted.count();
        Ok(())
    });
    let workers = start_workers(job, connection, &handle).await?;
    finished(meter.done(), workers).await?;
    Ok(meter.took())
}

/// Waits for the work's end and lets the workers' last acks be written; a worker that ends earlier has failed.
async fn finished(done: impl Future<Output = ()>, mut workers: JoinSet<Result<()>>) -> Result<()> {
    tokio::select! {
        () = done => {}
        Some(ended) = workers.join_next() => {
            ended??;
            bail!("a worker's consumer was cancelled");
        }
    }
    tokio::time::sleep(SETTLING).await;
    workers.shutdown().await;
    Ok(())
}

/// For the last acks, after the clock was stopped: lapin does not tell when one is written. Too short a time would show, since
/// the broker is asked afterwards what is left.
const SETTLING: Duration = Duration::from_millis(50);

/// Its channels were dropped just before and may be closing: that is refused, and of no interest any more.
async fn end(connection: &Connection) {
    drop(connection.close(200, "OK".into()).await);
}

/// What the core's messages carry as well, so that the broker has the same work: an id that makes a repeat recognisable,
/// the time, and who sent it.
fn properties(job: &Job) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_type("bench.0".into())
        .with_delivery_mode(PERSISTENT);
    if job.bare {
        return properties;
    }
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    properties
        .with_message_id(Uuid::now_v7().to_string().into())
        .with_timestamp(seconds)
        .with_app_id(jm_mq_core::BrokerOptions::default().app_id.into())
}

async fn write(channel: &Channel, job: &Job, body: &[u8]) -> lapin::Result<PublisherConfirm> {
    let queue = job.queue.as_str().into();
    channel.basic_publish("".into(), queue, BasicPublishOptions::default(), body, properties(job)).await
}

async fn confirmed(confirm: PublisherConfirm) -> Result<()> {
    match confirm.await? {
        Confirmation::Ack(_) => Ok(()),
        other => bail!("not confirmed: {other:?}"),
    }
}

async fn confirm_channel(connection: &Connection) -> Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// One confirm channel, confirms awaited in a window.
async fn publish(job: &Job, connection: &Connection) -> Result<Duration> {
    let body = vec![b'x'; job.body_size as usize];
    let channel = confirm_channel(connection).await?;
    confirmed(write(&channel, job, &body).await?).await?;
    let begun = Instant::now();
    let mut window = VecDeque::with_capacity(WINDOW);
    for _ in 0..job.messages {
        if window.len() == WINDOW
            && let Some(oldest) = window.pop_front()
        {
            confirmed(oldest).await?;
        }
        window.push_back(write(&channel, job, &body).await?);
    }
    for confirm in window {
        confirmed(confirm).await?;
    }
    Ok(begun.elapsed())
}

async fn publish_one(job: &Job, connection: &Connection) -> Result<Duration> {
    let body = vec![b'x'; job.body_size as usize];
    let channel = confirm_channel(connection).await?;
    confirmed(write(&channel, job, &body).await?).await?;
    let begun = Instant::now();
    for _ in 0..job.messages {
        confirmed(write(&channel, job, &body).await?).await?;
    }
    Ok(begun.elapsed())
}

/// What the specification's sketch does: a channel for each message, and no confirm.
async fn publish_channel_each(job: &Job, connection: &Connection) -> Result<Duration> {
    let body = vec![b'x'; job.body_size as usize];
    let begun = Instant::now();
    for _ in 0..job.messages {
        let channel = connection.create_channel().await?;
        drop(write(&channel, job, &body).await?);
        channel.close(200, "OK".into()).await?;
    }
    Ok(begun.elapsed())
}

async fn latency(job: &Job, connection: &Connection, cpu: f64) -> Result<Outcome> {
    let (meter, latencies) = (Meter::new(job.messages), Latencies::new(job.messages));
    let (counted, arrived) = (meter.clone(), latencies.clone());
    let handle: Handle = Arc::new(move |delivery| {
        arrived.arrived(&delivery.data);
        counted.count();
        Ok(())
    });
    let workers = start_workers(job, connection, &handle).await?;
    // A careful engineer keeps publishers and consumers apart: a blocked publisher must not hold up acks.
    let publishing = Connection::connect(&job.uri, ConnectionProperties::default()).await?;
    let channel = confirm_channel(&publishing).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / job.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..job.messages {
        ticks.tick().await;
        let confirm = write(&channel, job, &latencies.body(number, job.body_size)).await?;
        tokio::spawn(confirmed(confirm));
    }
    finished(meter.done(), workers).await?;
    end(&publishing).await;
    end(connection).await;
    Outcome::with_latencies(&latencies, cpu, meter.took())
}
