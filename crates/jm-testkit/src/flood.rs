//! Messages that are made to take memory, and what a worker takes of it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lapin::BasicProperties;

use crate::{Vhost, WorkerProcess, WorkerProcessBuilder};

/// What RabbitMQ 4 takes by default, and what the broker that is shipped with the workers takes at most.
const LARGEST: usize = 16 * 1024 * 1024;

/// Hundreds of megabytes, through a broker, a build that is not optimised, and the broker again.
const LIMIT: Duration = Duration::from_mins(10);

/// Equal messages of the largest size.
#[derive(Debug)]
pub struct Flood {
    message_type: String,
    body: Vec<u8>,
    count: usize,
    fate: Fate,
}

#[derive(Debug)]
enum Fate {
    Dead { kind: &'static str, reason: String },
    Done,
}

impl Flood {
    /// `count` messages of a type, each of which is to become a dead letter of that kind, with `reason` in its reason.
    pub fn dead(count: usize, message_type: &str, body: Vec<u8>, (kind, reason): (&'static str, &str)) -> Self {
        let fate = Fate::Dead { kind, reason: reason.to_owned() };
        Self { message_type: message_type.to_owned(), body, count, fate }
    }

    /// `count` messages of a type, each of which is to be done.
    pub fn done(count: usize, message_type: &str, body: Vec<u8>) -> Self {
        Self { message_type: message_type.to_owned(), body, count, fate: Fate::Done }
    }

    /// A body of 16 MiB: `begin`, then `repeated` for as long as there is room, then `end`.
    pub fn largest([begin, repeated, end]: [&str; 3]) -> Vec<u8> {
        let times = (LARGEST - begin.len() - end.len()) / repeated.len();
        [begin, &repeated.repeat(times), end].concat().into_bytes()
    }
}

/// Puts all of the floods into a queue, starts the worker, and returns it when each message has met its fate and no more
/// than the worker's shipped memory was ever in use. Fails when the worker ends before.
pub async fn withstand(
    name: &str,
    worker: WorkerProcessBuilder,
    vhost: &Vhost,
    queue: &str,
    floods: &[Flood],
) -> Result<WorkerProcess> {
    vhost.declare_queue(queue).await?;
    for flood in floods {
        for _ in 0..flood.count {
            let properties = BasicProperties::default().with_type(flood.message_type.as_str().into());
            vhost.publish(queue, properties, &flood.body).await?;
        }
    }
    let worker = worker.start().await?;
    let count = |dead: bool| {
        let met = floods.iter().filter(|flood| dead == matches!(flood.fate, Fate::Dead { .. }));
        met.map(|flood| flood.count).sum::<usize>()
    };
    let settled = |outcome: &'static str, count: usize| {
        let worker = &worker;
        async move {
            let Ok(count) = u32::try_from(count) else { bail!("too many messages") };
            let labels = [("queue", queue), ("outcome", outcome)];
            worker.wait_for_metric("jm_mq_deliveries_total", &labels, count.into(), LIMIT).await
        }
    };
    settled("dead_letter", count(true)).await?;
    settled("ack", count(false)).await?;
    let (peak, shipped) = (worker.peak_kib()?, shipped_kib(name)?);
    let dead = vhost.queue_counts(&format!("{queue}.dead")).await?;
    ensure!(dead.ready == count(true) as u64, "{dead:?}");
    let logged = worker.stdout();
    for flood in floods {
        let Fate::Dead { kind, reason } = &flood.fate else { continue };
        let told = logged.lines().filter(|line| line.contains(reason) && line.contains(&format!("{kind:?}")));
        ensure!(told.count() == flood.count, "not {} times {kind:?} and {reason:?}", flood.count);
    }
    ensure!(peak <= shipped, "{name} had {peak} KiB in use; its pod has {shipped} KiB");
    ensure!(worker.ended().is_none(), "{name} has ended");
    Ok(worker)
}

/// The limit of a worker's memory in `k8s`.
fn shipped_kib(name: &str) -> Result<u64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/base").join(name).join("deployment.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let limit = text.lines().find_map(|line| line.trim().strip_prefix("limits: { memory: ")?.strip_suffix(" }"));
    match limit.and_then(|limit| limit.split_at_checked(limit.len() - 2)) {
        Some((number, "Mi")) => Ok(number.parse::<u64>()? * 1024),
        Some((number, "Gi")) => Ok(number.parse::<u64>()? * 1024 * 1024),
        _ => bail!("{} has no limit of memory: {limit:?}", path.display()),
    }
}
