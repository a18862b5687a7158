//! A place in the campaign and its processes, one after the other: their starts and ends, each recorded.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    sync::{mpsc, oneshot, watch},
};

use super::scene::Scene;
use crate::{
    cast::Part,
    child::{self, Job, Pace, STANDING},
    history::{EXTENSION, What},
    required::required,
};

/// What a drain may take: the workers' own limit of 8 s, and what a loaded machine adds.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// Between a process that ended by itself and its replacement.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// What is done to the process itself.
#[derive(Debug)]
pub(super) enum Order {
    /// SIGKILL, and a replacement.
    Kill,
    /// SIGTERM, and a replacement once it has ended.
    Drain,
    /// SIGTERM, and nothing after it.
    Finish,
}

/// A place with its process.
pub(super) struct Place {
    pub(super) scene: Arc<Scene>,
    pub(super) slot: u8,
    pub(super) part: Part,
    pub(super) ports: Vec<u16>,
    pub(super) process: Arc<AtomicU32>,
    pub(super) pid: Arc<AtomicU32>,
    pub(super) paces: watch::Receiver<Pace>,
    pub(super) holds: watch::Receiver<bool>,
    pub(super) stands: watch::Sender<bool>,
}

/// What comes after an end.
enum After {
    Replace(Option<oneshot::Sender<()>>),
    Nothing(oneshot::Sender<()>),
}

impl Place {
    /// Has a process there all the time, from the first one to the last.
    pub(super) async fn keep(mut self, first: (u32, Child), mut inbox: mpsc::Receiver<(Order, oneshot::Sender<()>)>) {
        let (mut process, mut child) = first;
        loop {
            let (status, after) = self.live(process, &mut child, &mut inbox).await;
            self.pid.store(0, Ordering::SeqCst);
            self.scene.log.add(What::Exited { process, code: code_of(status) });
            match after {
                After::Nothing(done) => {
                    // Whoever gave the order may have stopped waiting: the campaign itself ends. So below.
                    let _ = done.send(());
                    return;
                }
                After::Replace(done) => {
                    if done.is_none() {
                        // As an orchestrator's back-off: a process that cannot start is not started in a loop.
                        tokio::time::sleep(RESTART_PAUSE).await;
                    }
                    (process, child) = required("a process cannot be replaced", self.spawn());
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
            }
        }
    }

    /// One process's life.
    async fn live(
        &mut self,
        process: u32,
        child: &mut Child,
        inbox: &mut mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    ) -> (Option<ExitStatus>, After) {
        let mut stdin = child.stdin.take();
        let mut told = None;
        loop {
            let pace = if *self.holds.borrow_and_update() { Pace::Held } else { *self.paces.borrow_and_update() };
            if told != Some(pace) && self.part.role == crate::history::Role::Publisher {
                told = Some(pace);
                if pace != Pace::Held {
                    self.stands.send_replace(false);
                }
                if let Some(stdin) = &mut stdin {
                    // A process that has just ended does not hear it; its replacement is told anew.
                    let _ = stdin.write_all(pace.word().as_bytes()).await;
                }
            }
            tokio::select! {
                ended = child.wait() => return (ended.ok(), After::Replace(None)),
                Ok(()) = self.paces.changed() => {}
                Ok(()) = self.holds.changed() => {}
                order = inbox.recv() => {
                    let Some((order, done)) = order else { std::future::pending().await };
                    return match order {
                        Order::Kill => {
                            // It may just have ended by itself. So in `stop`.
                            let _ = child.start_kill();
                            (child.wait().await.ok(), After::Replace(Some(done)))
                        }
                        Order::Drain => (self.stop(process, child).await, After::Replace(Some(done))),
                        Order::Finish => (self.stop(process, child).await, After::Nothing(done)),
                    };
                }
            }
        }
    }

    async fn stop(&self, process: u32, child: &mut Child) -> Option<ExitStatus> {
        self.scene.log.add(What::ToldToStop { process });
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if let Ok(ended) = tokio::time::timeout(DRAIN_LIMIT, child.wait()).await {
            return ended.ok();
        }
        let _ = child.start_kill();
        child.wait().await.ok()
    }

    /// Starts the next process.
    pub(super) fn spawn(&self) -> Result<(u32, Child)> {
        let scene = &self.scene;
        let process = scene.processes.next();
        let name = format!("{process:05}-{}-{}", self.part.role.label(), self.slot);
        let job = Job {
            process,
            slot: self.slot,
            part: self.part.into(),
            ports: self.ports.clone(),
            history: scene.folder.join(&name).with_extension(EXTENSION),
            deviation: scene.deviation.filter(|(slot, _)| *slot == self.slot).map(|(_, deviation)| deviation),
            ..scene.job.clone()
        };
        let errors =
            OpenOptions::new().create(true).append(true).open(scene.folder.join(format!("slot-{}.log", self.slot)))?;
        self.stands.send_replace(false);
        // Connections from now on are this one's: its predecessor is gone.
        self.process.store(process, Ordering::SeqCst);
        let (slot, role, queue) = (self.slot, self.part.role, self.part.queue);
        scene.log.add(What::Started { process, slot, role, queue });
        let mut log = errors.try_clone()?;
        let mut child = child::spawn(&scene.program, &job, errors)?;
        self.pid.store(child.id().unwrap_or_default(), Ordering::SeqCst);
        if let Some(stdout) = child.stdout.take() {
            let stands = self.stands.clone();
            tokio::spawn(async move {
                // Bytes, since it need not be text; none may be missing when it is searched for secrets at the end.
                let (mut output, mut line) = (BufReader::new(stdout), Vec::new());
                while required("what a process prints cannot be recorded", output.read_until(b'\n', &mut line).await)
                    > 0
                {
                    if line.trim_ascii() == STANDING.as_bytes() {
                        stands.send_replace(true);
                    } else {
                        required("what a process prints cannot be recorded", log.write_all(&line));
                    }
                    line.clear();
                }
            });
        }
        Ok((process, child))
    }
}

/// The exit code, 128 and the signal for one that was killed, 255 for what nobody knows.
fn code_of(status: Option<ExitStatus>) -> u16 {
    let code = status.and_then(|status| status.code().or_else(|| status.signal().map(|signal| 128 + signal)));
    code.and_then(|code| u16::try_from(code).ok()).unwrap_or(255)
}
