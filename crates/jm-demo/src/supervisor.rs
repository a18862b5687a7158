//! The process behind `make up`: it owns broker and workers, starts again what ends by itself, and takes all down when it
//! is told to.
//!
//! It tells the process that started it each step, on standard output, a line of JSON each. While it is starting it ends
//! when that process does; after that it is on its own.

mod rest;

use std::{
    future::Future,
    io::{self, Read as _, Write as _},
    pin::pin,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};

use self::rest::Rest;
use crate::{
    engines::Engines,
    pipeline::{Pipeline, Plan, Step},
    state::{Held, StateFolder, Up},
    workers::Binaries,
};

/// What the supervisor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A step has been taken.
    Step {
        /// What is there now.
        what: String,
        /// How long it took.
        milliseconds: u64,
    },
    /// Everything is up.
    Ready,
    /// Another supervisor is, or is about to be.
    Taken,
    /// It could not be started.
    Failed {
        /// Why.
        error: String,
    },
}

/// Starts everything, and returns when it is down again.
///
/// # Errors
///
/// When it cannot be started, or did not stop as it should have.
pub async fn supervise(state: StateFolder, engines: Engines, binaries: Binaries) -> Result<()> {
    // A session of its own: it stays when the terminal goes. Fails only where it has one already.
    let _ = setsid();
    // From the beginning to the end, so that no signal comes between.
    let mut told_to_end = pin!(ended()?);
    let chat = engines.chat();
    let (held, pipeline) = match start(&state, engines, binaries, &mut told_to_end).await {
        Ok(Some(started)) => started,
        Ok(None) => return Ok(()),
        Err(error) => {
            tell(&Told::Failed { error: format!("{error:#}") });
            return Err(error);
        }
    };
    let announce =
        |pipeline: &Pipeline| state.announce(&Up { holder: held.holder.clone(), access: pipeline.access(), chat });
    announce(&pipeline)?;
    tell(&Told::Ready);
    log("everything is up");
    let stopped = watch(pipeline, announce, &mut told_to_end).await;
    log(if stopped.is_ok() { "everything is down" } else { "everything is down, with an error" });
    // Only now may another one have the folder.
    drop(held);
    stopped
}

/// `None` when another one has the folder, or nobody wants it any more.
async fn start(
    state: &StateFolder,
    engines: Engines,
    binaries: Binaries,
    told_to_end: &mut (impl Future<Output = ()> + Unpin),
) -> Result<Option<(Held, Pipeline)>> {
    let Some(held) = state.hold()? else {
        tell(&Told::Taken);
        return Ok(None);
    };
    let plan = Plan { engines, binaries, kept: Some(state.clone()), before: state.last()?.map(|up| up.access) };
    let mut told = |step: Step| {
        log(&format!("{}, after {:?}", step.what, step.took));
        tell(&Told::Step { what: step.what, milliseconds: step.took.as_millis().try_into().unwrap_or(u64::MAX) });
    };
    tokio::select! {
        started = Pipeline::start(plan, &mut told) => Ok(Some((held, started?))),
        () = told_to_end => {
            log("told to end while starting");
            Ok(None)
        }
        () = starter_is_gone() => {
            log("who started this is gone before it was up");
            Ok(None)
        }
    }
}

/// Starts again what ends by itself, and announces it, until it is told to end.
async fn watch(
    mut pipeline: Pipeline,
    announce: impl Fn(&Pipeline) -> Result<()>,
    told_to_end: &mut (impl Future<Output = ()> + Unpin),
) -> Result<()> {
    let mut rest = Rest::new();
    loop {
        tokio::select! {
            () = sleep(rest.duration()) => {}
            () = &mut *told_to_end => break,
        }
        let mended = tokio::select! {
            mended = pipeline.mend() => mended,
            () = &mut *told_to_end => break,
        };
        match mended {
            Ok(ended) if ended.is_empty() => {
                rest.found_all_running(Instant::now());
                continue;
            }
            Ok(ended) => {
                for line in &ended {
                    log(line);
                }
                // Another process may have taken the port meanwhile.
                announce(&pipeline)?;
            }
            Err(error) => log(&format!("could not start it again: {error:#}")),
        }
        rest.mended(Instant::now());
    }
    log("told to end");
    pipeline.stop().await
}

/// Resolves at SIGTERM or SIGINT.
fn ended() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("could not listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen to signals")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Resolves when standard input ends, which the process that started this one holds open.
async fn starter_is_gone() {
    let (gone, told) = oneshot::channel::<()>();
    // A thread of its own: a read of standard input cannot be ended, and the runtime would wait for it.
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(gone);
    });
    let _ = told.await;
}

/// Nobody may be there to hear it any more.
fn tell(told: &Told) {
    let line = serde_json::to_string(told).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
}

/// Standard error is the log.
fn log(line: &str) {
    let _ = writeln!(io::stderr(), "{:.3} {line}", Timestamp::now());
}
