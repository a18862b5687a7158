//! The course of a measurement: pairs of runs, core and plain in turn.

use std::{fs, io::Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    case::{Case, Quantity, Target},
    child,
    figures::Range,
    ground::Ground,
    job::{Job, Outcome, Work},
    options::{Choice, Options},
    reconnect::{self, Reconnect},
    scaling::{self, Scaling},
};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) works: Vec<Compared>,
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) scaling: Vec<Scaling>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) kernel: String,
    pub(crate) rabbitmq: String,
    /// The load average of the minute before: below 0.3 nobody else was at work.
    pub(crate) load_before: String,
}

/// One work, done by both.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) name: String,
    pub(crate) messages: u64,
    pub(crate) body_size: u32,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) lines: Vec<Line>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) core: Outcome,
    pub(crate) plain: Outcome,
}

/// One quantity of a work.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) quantity: Quantity,
    pub(crate) core: Range,
    pub(crate) plain: Range,
    /// Core / plain, of each pair.
    pub(crate) ratio: Range,
    pub(crate) target: Option<Target>,
    pub(crate) met: Option<bool>,
}

/// The measurement itself.
pub(crate) struct Course<'a> {
    pub(crate) options: &'a Options,
    pub(crate) ground: Ground,
}

/// A shorter pair before the ones that count: a fresh broker is slow.
const WARM_UP: u64 = 10_000;

impl<'a> Course<'a> {
    pub(crate) async fn run(options: &'a Options) -> Result<Report> {
        let load_before = load()?;
        let ground = Ground::start().await?;
        let machine = Machine::read(&ground, load_before).await?;
        let course = Course { options, ground };
        let uri = course.ground.vhost.uri();
        let mut works = Vec::new();
        for case in Case::chosen(options, &uri) {
            works.push(course.compare(&case, options.rounds).await?);
        }
        let scaling = scaling::measure(&course).await?;
        let reconnect = if options.wants(Choice::Reconnect) { Some(reconnect::measure(&course).await?) } else { None };
        Ok(Report { machine, works, reconnect, scaling })
    }

    /// Has both do a case, in turn.
    pub(crate) async fn compare(&self, case: &Case, rounds: u16) -> Result<Compared> {
        self.warm_up(case).await?;
        let mut pairs = Vec::new();
        for round in 1..=rounds {
            writeln!(std::io::stderr(), "{}: {round} of {rounds}", case.name)?;
            let core = self.one(case, &case.core).await?;
            let plain = self.one(case, &case.plain).await?;
            pairs.push(Pair { core, plain });
        }
        let lines = Quantity::ALL.into_iter().filter_map(|quantity| Line::of(quantity, case, &pairs)).collect();
        let Job { messages, body_size, .. } = case.core;
        Ok(Compared { name: case.name.clone(), messages, body_size, pairs, lines })
    }

    async fn warm_up(&self, case: &Case) -> Result<()> {
        let short = |job: &Job| Job { messages: job.messages.min(WARM_UP), ..job.clone() };
        let mut case = Case { core: short(&case.core), plain: short(&case.plain), ..case.clone() };
        if case.waiting > 0 {
            case.waiting = case.core.messages;
        }
        case.fed = case.fed.min(case.core.messages);
        self.one(&case, &case.core).await?;
        self.one(&case, &case.plain).await?;
        Ok(())
    }

    /// One run, from an empty queue to what it has to leave.
    async fn one(&self, case: &Case, job: &Job) -> Result<Outcome> {
        self.ground.clear(&job.queue).await?;
        self.ground.fill(job, case.waiting).await?;
        let outcome = async {
            let (outcome, ()) = tokio::try_join!(child::have_done(job), self.ground.fill(job, case.fed))?;
            anyhow::Ok(outcome)
        };
        let outcome = outcome.await.with_context(|| case.name.clone())?;
        let left = match job.work {
            // Where more is there than they are to do, both sides go on until they have stopped.
            Work::Consume => 0..=(case.waiting + case.fed).saturating_sub(job.messages),
            // The first one opens the channel, before the clock starts.
            Work::Publish | Work::PublishOne => job.messages + 1..=job.messages + 1,
            Work::PublishChannelEach => job.messages..=job.messages,
            Work::Latency | Work::Reconnect => 0..=0,
        };
        self.ground.expect(&job.queue, left).await.with_context(|| format!("{}: {:?}", case.name, job.side))?;
        Ok(outcome)
    }
}

impl Line {
    fn of(quantity: Quantity, case: &Case, pairs: &[Pair]) -> Option<Self> {
        let values: Option<Vec<(f64, f64)>> = pairs
            .iter()
            .map(|pair| Some((quantity.of(&case.core, &pair.core)?, quantity.of(&case.plain, &pair.plain)?)))
            .collect();
        let values = values?;
        let ratio = Range::of(values.iter().map(|(core, plain)| core / plain));
        let target = case.targets.iter().find(|target| target.quantity == quantity).copied();
        Some(Self {
            quantity,
            core: Range::of(values.iter().map(|(core, _)| *core)),
            plain: Range::of(values.iter().map(|(_, plain)| *plain)),
            ratio,
            target,
            met: target.map(|target| target.bound.is_met(ratio.median)),
        })
    }
}

impl Report {
    /// Whether every target that was measured is met.
    pub(crate) fn is_met(&self) -> bool {
        let lines = self.works.iter().flat_map(|work| &work.lines);
        lines.filter_map(|line| line.met).chain(self.reconnect.iter().map(|reconnect| reconnect.met)).all(|met| met)
    }
}

impl Machine {
    async fn read(ground: &Ground, load_before: String) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        Ok(Self {
            processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            rabbitmq: ground.version().await?,
            load_before,
        })
    }
}

fn load() -> Result<String> {
    let loads = fs::read_to_string("/proc/loadavg")?;
    Ok(loads.split(' ').next().unwrap_or_default().to_owned())
}
