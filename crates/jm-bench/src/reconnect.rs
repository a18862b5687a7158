//! How soon work goes on after a broker that was killed answers again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jm_testkit::Vhost;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStdout,
};

use crate::{
    child,
    course::Course,
    figures::Range,
    job::{Job, Side, Work},
};

/// The first message has to be handled so soon after the broker answers.
const TARGET: Duration = Duration::from_secs(1);
/// Each of them starts a broker, which takes seconds.
const ROUNDS: u16 = 5;
const LIMIT: Duration = Duration::from_mins(1);
/// Between two attempts to publish to a broker that comes up.
const RETRY: Duration = Duration::from_millis(10);

/// From the broker's first answer to a handshake to the first message in a handler.
#[derive(Debug, Serialize)]
pub(crate) struct Reconnect {
    pub(crate) millis: Range,
    pub(crate) target_millis: u64,
    pub(crate) met: bool,
}

pub(crate) async fn measure(course: &Course<'_>) -> Result<Reconnect> {
    let Course { options, ground } = course;
    let uri = ground.vhost.uri();
    let job = Job { side: Side::Core, work: Work::Reconnect, ..Job::from_options(options, &uri) };
    ground.clear(&job.queue).await?;
    let mut child = child::spawn(&job)?;
    let mut told = BufReader::new(child.stdout.take().context("the child has no output")?).lines();
    hear(&mut told, "ready").await?;
    let mut millis = Vec::new();
    for _ in 0..ROUNDS.min(options.rounds) {
        ground.node.kill().await?;
        ground.node.start_again().await?;
        ground.node.wait_until_up(LIMIT).await?;
        let answered = Instant::now();
        publish_once(&ground.vhost, &job.queue).await?;
        hear(&mut told, "handled").await?;
        millis.push(answered.elapsed().as_secs_f64() * 1e3);
    }
    // Its input ends, and so does it.
    drop(child.stdin.take());
    tokio::time::timeout(LIMIT, child.wait()).await.context("the child did not end")??;
    let millis = Range::of(millis);
    let met = millis.max <= TARGET.as_secs_f64() * 1e3;
    Ok(Reconnect { millis, target_millis: 1000, met })
}

async fn publish_once(vhost: &Vhost, queue: &str) -> Result<()> {
    let until = Instant::now() + LIMIT;
    loop {
        match vhost.publish(queue, lapin::BasicProperties::default().with_delivery_mode(2), b"{}").await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn hear(told: &mut Lines<BufReader<ChildStdout>>, wanted: &str) -> Result<()> {
    let line = tokio::time::timeout(LIMIT, told.next_line()).await;
    match line.with_context(|| format!("the child did not say `{wanted}` within {LIMIT:?}"))?? {
        Some(line) if line == wanted => Ok(()),
        other => bail!("the child said {other:?} in place of `{wanted}`"),
    }
}
