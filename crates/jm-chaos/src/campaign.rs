//! The course of a campaign: a broker, the processes, the faults, the healing, the drain.

mod ground;
mod injector;
mod keeper;
mod options;
mod place;
mod scene;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use jm_testkit::LeakSearch;
use tokio::time::Instant;

pub use self::{ground::Ground, options::Options};
use self::{keeper::Keeper, scene::Scene, watch::Watch};
use crate::{
    history::{Log, Role, What},
    message::{self, Id, Queue},
    plan::Plan,
};

/// What the processes' start may take, on a machine with other things to do.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// The places with their processes, by slot.
type Keepers = Arc<BTreeMap<u8, Keeper>>;

/// Runs a campaign on a broker of its own, and leaves its history in `folder` with the logs of processes and nodes.
/// Returns a search for the secrets that it made up, which has not searched anything yet.
pub async fn run(options: &Options, plan: &Plan, folder: &Path) -> Result<LeakSearch> {
    options.say(format_args!("starting {}", plan.setting));
    let ground = Ground::prepare(plan.setting).await?;
    run_on(Arc::new(ground), options, plan, folder).await
}

/// Runs a campaign on this ground.
pub async fn run_on(ground: Arc<Ground>, options: &Options, plan: &Plan, folder: &Path) -> Result<LeakSearch> {
    let log = Arc::new(Log::buffered(&folder.join("campaign.history")).context("could not write the history")?);
    let scene = Scene::set(options, plan, &ground, folder, Arc::clone(&log))?;
    let mut keepers = BTreeMap::new();
    for &slot in &options.cast {
        keepers.insert(slot, Keeper::start(&scene, slot).await?);
    }
    let keepers: Keepers = Arc::new(keepers);
    let queues: Vec<Queue> = consumed(&keepers);
    ground.wait_for_consumers(&queues, READY_LIMIT).await?;
    options.say(format_args!("publishing for {} s, with {} faults", plan.seconds, plan.faults.len()));

    let watch = Watch::start(Arc::clone(&ground), Arc::clone(&keepers), Arc::clone(&log), options.progress(plan));
    let began = Instant::now();
    injector::inject(options, plan, &scene, &ground, &keepers, began).await?;
    tokio::time::sleep_until(began + Duration::from_secs(plan.seconds)).await;

    options.say(format_args!("faults are over; emptying the queues"));
    finish(&keepers, Role::Publisher).await;
    log.add(What::Quiet {});
    settle(&ground, &log, options, &queues).await;
    watch.stop().await;
    options.say(format_args!("draining the workers"));
    finish(&keepers, Role::Worker).await;
    drop(keepers);
    look_at_what_is_left(&ground, &log, plan.seed, &queues).await?;
    scene.flush().context("could not write the history")?;
    log.flush().context("could not write the history")?;
    ground.leave_logs(folder)?;
    ground.leak_search()
}

/// The queues that somebody consumes.
fn consumed(keepers: &Keepers) -> Vec<Queue> {
    let workers = keepers.values().map(Keeper::part).filter(|part| part.role == Role::Worker);
    workers.map(|part| part.queue).collect::<BTreeSet<_>>().into_iter().collect()
}

async fn finish(keepers: &Keepers, role: Role) {
    let ends = keepers.values().filter(|keeper| keeper.part().role == role).map(Keeper::finish);
    futures_util::future::join_all(ends).await;
}

/// Waits until every queue is empty and has a consumer, and records what each came to.
async fn settle(ground: &Ground, log: &Log, options: &Options, queues: &[Queue]) {
    let deadline = Instant::now() + options.empty_limit;
    let mut left: BTreeMap<Queue, _> = queues.iter().copied().map(|queue| (queue, None)).collect();
    loop {
        for (&queue, last) in &mut left {
            *last = ground.counts(queue.name()).await.ok();
        }
        let done = left.values().all(|counts| counts.is_some_and(|counts| counts.is_empty() && counts.consumers > 0));
        if done || Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (queue, counts) in left {
        match counts {
            Some(counts) => log.add(What::Settled {
                queue,
                ready: counts.ready,
                unacked: counts.unacked,
                consumers: counts.consumers,
            }),
            None => options.say(format_args!("{} cannot be counted", queue.name())),
        }
    }
}

/// Counts what is unacked, and takes the dead letters and what still waits.
async fn look_at_what_is_left(ground: &Ground, log: &Log, seed: u64, queues: &[Queue]) -> Result<()> {
    for &queue in queues {
        let counts = ground.counts(queue.name()).await?;
        log.add(What::Left { queue, ready: counts.ready, unacked: counts.unacked });
        for delivery in ground.take_all(queue.name()).await? {
            log.add(What::Waiting { queue, id: id_of(&delivery.properties) });
        }
        for delivery in ground.take_all(&queue.dead()).await? {
            let id = id_of(&delivery.properties);
            let intact = delivery.data == message::body(seed, id);
            let headers = delivery.properties.headers().as_ref();
            let kind = headers.and_then(|headers| headers.inner().get("jm-error-kind"));
            let poison = kind.and_then(|kind| kind.as_long_string()).is_some_and(|kind| kind.as_bytes() == b"poison");
            log.add(What::Dead { queue, id, intact, poison });
        }
    }
    Ok(())
}

fn id_of(properties: &jm_mq_core::BasicProperties) -> Id {
    properties.message_id().as_ref().map_or(Id::FOREIGN, |id| Id::parse(id.as_str()))
}

/// Numbers that count from 1, for processes and faults.
#[derive(Debug, Default)]
struct Numbers(AtomicU32);

impl Numbers {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}
