//! The processes that do the work: this program again, with a job in its environment.

use std::{env, io::Write, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::{
    core_side,
    job::{Job, Outcome, Side},
    plain_side,
};

const JOB: &str = "JM_BENCH_JOB";
/// No run takes as long on any machine.
const LIMIT: Duration = Duration::from_mins(15);

/// The job of this process, if it is a child.
pub(crate) fn job() -> Result<Option<Job>> {
    match env::var(JOB) {
        Ok(job) => serde_json::from_str(&job).map(Some).with_context(|| format!("{JOB} is no job")),
        Err(_) => Ok(None),
    }
}

/// Does the job, and writes the outcome to standard output.
pub(crate) fn run(job: &Job) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(async {
        match job.side {
            Side::Core => core_side::run(job).await,
            Side::Plain => plain_side::run(job).await,
        }
    })?;
    // Broken connections must not keep the process.
    runtime.shutdown_background();
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    Ok(())
}

/// Starts a process for a job. It ends with the returned value.
pub(crate) fn spawn(job: &Job) -> Result<Child> {
    Command::new(env::current_exe()?)
        .env(JOB, serde_json::to_string(job)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("could not start a process for a side")
}

/// Has a job done, and returns its outcome.
pub(crate) async fn have_done(job: &Job) -> Result<Outcome> {
    let output = tokio::time::timeout(LIMIT, spawn(job)?.wait_with_output());
    let output = output.await.with_context(|| format!("{:?} of {:?} took over {LIMIT:?}", job.work, job.side))??;
    if !output.status.success() {
        bail!("{:?} of {:?} failed: {}", job.work, job.side, output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{:?} of {:?} told nonsense", job.work, job.side))
}
