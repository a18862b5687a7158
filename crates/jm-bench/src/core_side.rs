//! The works, done by the core with all of its contract on.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt, stream};
use jm_mq_core::{
    Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Message, Outgoing, Publisher,
    PublisherOptions, RawMessage, Router, RunningConsumer, Topology,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{io::AsyncReadExt, time::MissedTickBehavior};

use crate::{
    job::{Job, Outcome, Work, type_name},
    meter::{Latencies, Meter},
    usage,
};

/// Messages handed to one `publish_all`.
const BATCH: u64 = 250;
/// How often histograms are emptied where nobody scrapes; as the workers' binaries do it.
const UPKEEP: Duration = Duration::from_secs(1);

pub(crate) async fn run(job: &Job) -> Result<Outcome> {
    install_recorder()?;
    match job.work {
        Work::Consume => consume(job).await,
        Work::Publish => publish(job).await,
        Work::PublishOne => publish_one(job).await,
        Work::Latency => latency(job).await,
        Work::Reconnect => reconnect(job).await,
        Work::PublishChannelEach => bail!("only the plain side opens a channel for each message"),
    }
}

/// A real recorder with the buckets of the workers' binaries.
fn install_recorder() -> Result<()> {
    let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1200.0];
    let recorder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &buckets)?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok().context("a recorder is installed already")?;
    jm_mq_core::metrics::describe();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            handle.run_upkeep();
        }
    });
    Ok(())
}

fn start(job: &Job, broker: &Broker, publisher: &Publisher, router: Router) -> Result<RunningConsumer> {
    let options = ConsumerOptions {
        concurrency: job.workers.into(),
        prefetch_per_worker: job.prefetch,
        ..ConsumerOptions::default()
    };
    Ok(Consumer::new(broker, publisher, Topology::work_queue(&job.queue), options, router)?.start())
}

fn connect(job: &Job) -> Result<(Broker, Publisher)> {
    let broker = Broker::new(BrokerOptions::from_dsn(&job.uri)?)?;
    let publisher = Publisher::new(&broker, PublisherOptions::default())?;
    Ok((broker, publisher))
}

async fn consume(job: &Job) -> Result<Outcome> {
    let cpu = usage::cpu_seconds()?;
    let meter = Meter::new(job.messages);
    let (broker, publisher) = connect(job)?;
    let mut router = Router::new();
    if job.types == 0 {
        let meter = meter.clone();
        router = router.fallback(move |_: RawMessage, _: Context| {
            meter.count();
            async { Ok::<_, HandlerError>(()) }
        });
    }
    for n in 0..job.types {
        let meter = meter.clone();
        router = router.on_type(&type_name(n), move |_: String, _: Context| {
            meter.count();
            async { Ok::<_, HandlerError>(()) }
        });
    }
    let running = start(job, &broker, &publisher, router)?;
    meter.done().await;
    running.shutdown().await;
    Outcome::of(meter.took(), cpu)
}

/// A publisher that has published once, and what it publishes.
async fn publishing(job: &Job) -> Result<(Publisher, impl Fn() -> Outgoing)> {
    let (_, publisher) = connect(job)?;
    let body = Message::new("bench.0", vec![b'x'; job.body_size as usize]).body().clone();
    let queue = job.queue.clone();
    let outgoing = move || Outgoing::to_queue(&queue, Message::new("bench.0", body.clone()));
    publisher.publish(&outgoing()).await?;
    Ok((publisher, outgoing))
}

/// Two batches at a time, so that one is written while the other's last confirms come.
async fn publish(job: &Job) -> Result<Outcome> {
    let cpu = usage::cpu_seconds()?;
    let (publisher, outgoing) = publishing(job).await?;
    let begun = Instant::now();
    let mut left = job.messages;
    let sizes = std::iter::from_fn(|| {
        let count = left.min(BATCH);
        left -= count;
        (count > 0).then_some(count)
    });
    let batches = stream::iter(sizes).map(async |count| {
        let batch: Vec<Outgoing> = (0..count).map(|_| outgoing()).collect();
        publisher.publish_all(&batch).await
    });
    let mut results = pin!(batches.buffer_unordered(2));
    while let Some(results) = results.next().await {
        results.into_iter().collect::<Result<(), _>>()?;
    }
    let took = begun.elapsed();
    publisher.close().await;
    Outcome::of(took, cpu)
}

async fn publish_one(job: &Job) -> Result<Outcome> {
    let cpu = usage::cpu_seconds()?;
    let (publisher, outgoing) = publishing(job).await?;
    let begun = Instant::now();
    for _ in 0..job.messages {
        publisher.publish(&outgoing()).await?;
    }
    let took = begun.elapsed();
    publisher.close().await;
    Outcome::of(took, cpu)
}

async fn latency(job: &Job) -> Result<Outcome> {
    let cpu = usage::cpu_seconds()?;
    let (meter, latencies) = (Meter::new(job.messages), Latencies::new(job.messages));
    let (broker, publisher) = connect(job)?;
    let (counted, arrived) = (meter.clone(), latencies.clone());
    let router = Router::new().fallback(move |message: RawMessage, _: Context| {
        arrived.arrived(&message.body);
        counted.count();
        async { Ok::<_, HandlerError>(()) }
    });
    let running = start(job, &broker, &publisher, router)?;
    running.ready().await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / job.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..job.messages {
        ticks.tick().await;
        let message = Message::new("bench.0", latencies.body(number, job.body_size));
        let (publisher, outgoing) = (publisher.clone(), Outgoing::to_queue(&job.queue, message));
        tokio::spawn(async move { publisher.publish(&outgoing).await });
    }
    meter.done().await;
    running.shutdown().await;
    publisher.close().await;
    Outcome::with_latencies(&latencies, cpu, meter.took())
}

impl Outcome {
    /// The outcome of a run that is over; `cpu` is what had been used before it.
    pub(crate) fn of(took: Duration, cpu: f64) -> Result<Self> {
        Ok(Self {
            seconds: took.as_secs_f64(),
            cpu_seconds: usage::cpu_seconds()? - cpu,
            peak_kib: usage::peak_kib()?,
            ..Self::default()
        })
    }

    /// The same with latencies.
    pub(crate) fn with_latencies(latencies: &Latencies, cpu: f64, took: Duration) -> Result<Self> {
        let micros = latencies.sorted_micros();
        Ok(Self {
            p50_micros: crate::figures::quantile(&micros, 0.50),
            p99_micros: crate::figures::quantile(&micros, 0.99),
            ..Self::of(took, cpu)?
        })
    }
}

/// Tells on standard output when it is ready and each message that it handles, until standard input ends.
async fn reconnect(job: &Job) -> Result<Outcome> {
    use std::io::Write;
    let (broker, publisher) = connect(job)?;
    let router = Router::new().fallback(async |_: RawMessage, _: Context| {
        writeln!(std::io::stdout(), "handled")?;
        Ok::<_, HandlerError>(())
    });
    let running = start(job, &broker, &publisher, router)?;
    running.ready().await;
    writeln!(std::io::stdout(), "ready")?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    running.shutdown().await;
    Ok(Outcome::default())
}
