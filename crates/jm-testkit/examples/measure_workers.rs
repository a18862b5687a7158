//! `make measure`: how long each worker takes to be ready, what memory it has when idle, how large its binary is.
//!
//! `measure_workers FOLDER` looks for the five binaries in FOLDER. It prints a table, and fails when a worker is over
//! one of the limits.
#![allow(clippy::print_stdout, reason = "a command speaks on its terminal")]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use jm_testkit::{RabbitNode, WorkerProcess};

const WORKERS: [&str; 5] = ["llm-worker", "asr-worker", "sd-worker", "embed-worker", "record-event-worker"];
/// Starts of each worker, of which the median counts.
const STARTS: usize = 5;
/// How long a worker idles before its memory is read: past the first scrapes of its own and the backlog's.
const IDLE: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

const MAX_START: Duration = Duration::from_secs(1);
const MAX_RESIDENT_KIB: u64 = 28 * 1024;
const MAX_BINARY_BYTES: u64 = 28 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map(PathBuf::from).context("usage: measure_workers FOLDER")?;
    // The workers run in another folder.
    let folder = fs::canonicalize(&folder).with_context(|| folder.display().to_string())?;
    let node = RabbitNode::start().await?;
    let vhost = node.vhost().await?;
    println!("| worker | ready after | memory, idle | binary |");
    println!("|---|---|---|---|");
    let mut over = Vec::new();
    for name in WORKERS {
        let program = folder.join(name);
        let bytes = fs::metadata(&program).with_context(|| program.display().to_string())?.len();
        let mut starts = Vec::new();
        let mut resident = 0;
        for start in 1..=STARTS {
            let scratch = folder.join("measure");
            fs::create_dir_all(&scratch)?;
            let begun = Instant::now();
            let mut worker = WorkerProcess::builder(&program).vhost(&vhost).folder(&scratch);
            if name != "record-event-worker" {
                // An engine that is never asked.
                worker = worker.env("JM_ENGINE__BASE_URL", "http://127.0.0.1:9/v1").env("JM_ENGINE__MODEL", "none");
            }
            let worker = worker.start().await?;
            worker.wait_ready(LIMIT).await?;
            starts.push(begun.elapsed());
            if start == STARTS {
                tokio::time::sleep(IDLE).await;
                resident = worker.resident_kib()?;
            }
            worker.terminate()?;
            worker.wait(LIMIT).await?;
            fs::remove_dir_all(&scratch)?;
        }
        starts.sort();
        let median = starts[STARTS / 2];
        println!("| `{name}` | {} ms | {} MiB | {} MiB |", median.as_millis(), tenths(resident * 1024), tenths(bytes));
        if median > MAX_START || resident > MAX_RESIDENT_KIB || bytes > MAX_BINARY_BYTES {
            over.push(name);
        }
    }
    if !over.is_empty() {
        bail!("over 1 s, 28 MiB of memory, or 28 MiB of binary: {}", over.join(", "));
    }
    Ok(())
}

/// Bytes in MiB, to a tenth.
fn tenths(bytes: u64) -> String {
    let tenths = bytes * 10 / (1024 * 1024);
    format!("{}.{}", tenths / 10, tenths % 10)
}
