//! `jm-bench`: what the core costs beside the plain lapin loop that a careful engineer would write in its place.
//!
//! Both do the same work in turn (core, plain, core, plain, …) on a private broker, each time in a process of its own,
//! so that CPU time and peak memory are each one's own. What counts is the ratio of the two in each pair: machines and
//! their moods cancel out.
//!
//! In reading order: `options` (the command line), `case` (what is measured, and the targets), `job` (what a child
//! process is told and what it answers), `core_side` and `plain_side` (the same works, twice), `course` (the pairs),
//! `figures` and `report` (what came of them), `scaling` and `reconnect`.

mod case;
mod child;
mod core_side;
mod course;
mod figures;
mod ground;
mod job;
mod meter;
mod options;
mod plain_side;
mod reconnect;
mod report;
mod scaling;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::{course::Course, options::Options};

fn main() -> Result<ExitCode> {
    // A child process is this program again, with a job.
    if let Some(job) = child::job()? {
        return child::run(&job).map(|()| ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(Course::run(&options))?;
    report::print(&report, options.json)?;
    Ok(if report.is_met() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}
