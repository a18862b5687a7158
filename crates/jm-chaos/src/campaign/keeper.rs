//! Keeps a process in its place: starts it, records its start and end, replaces it, and has its link made bad.

use std::{
    fs::OpenOptions,
    io::Write,
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use jm_testkit::TcpProxy;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{Numbers, Options, ground::Ground};
use crate::{
    cast::{CAST, Part},
    child::{self, Deviation, Job, Pace, STANDING},
    history::{EXTENSION, Log, What, recorded},
    tap::{Recorder, Tap},
};

/// What a drain may take: the workers' own limit of 8 s, and what a loaded machine adds.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// Between a process that ended by itself and its replacement.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// What all processes of a campaign have in common.
#[derive(Debug)]
pub(super) struct Scene {
    folder: PathBuf,
    log: Arc<Log>,
    tap_log: Arc<Log>,
    taps: Handle,
    /// Ends the taps' thread when dropped.
    _taps_end: oneshot::Sender<()>,
    connections: Arc<AtomicU32>,
    processes: Numbers,
    /// A job without number and place.
    job: Job,
    program: PathBuf,
    deviation: Option<(u8, Deviation)>,
    nodes: Vec<u16>,
}

impl Scene {
    pub(super) fn set(
        options: &Options,
        seed: u64,
        ground: &Ground,
        folder: &Path,
        log: Arc<Log>,
    ) -> Result<Arc<Self>> {
        let tap_log = Arc::new(Log::buffered(&folder.join("tap.history")).context("could not write the history")?);
        // One thread for all of them, so that what they record is in order.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let taps = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("taps".to_owned()).spawn(move || runtime.block_on(ended))?;
        let vhost = ground.vhost();
        let job = Job {
            process: 0,
            slot: 0,
            part: CAST[0].into(),
            seed,
            ports: Vec::new(),
            user: vhost.user.clone(),
            password: vhost.password.clone(),
            vhost: vhost.name.clone(),
            history: PathBuf::new(),
            declared: ground.declared(),
            rate: options.rate,
            deviation: None,
        };
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            log,
            tap_log,
            taps,
            _taps_end: end,
            connections: Arc::default(),
            processes: Numbers::default(),
            job,
            program: options.program.clone(),
            deviation: options.deviation,
            nodes: ground.ports(),
        }))
    }

    /// Writes what the taps have recorded.
    pub(super) fn flush(&self) -> std::io::Result<()> {
        self.tap_log.flush()
    }
}

/// The way from a process to one node: tap, then a link that can be made bad.
#[derive(Debug)]
struct Link {
    tap: Tap,
    proxy: TcpProxy,
}

/// What is done to the process itself.
#[derive(Debug)]
enum Order {
    /// SIGKILL, and a replacement.
    Kill,
    /// SIGTERM, and a replacement once it has ended.
    Drain,
    /// SIGTERM, and nothing after it.
    Finish,
}

/// A place with its process.
#[derive(Debug)]
pub(super) struct Keeper {
    part: Part,
    links: Vec<Link>,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    pace: watch::Sender<Pace>,
    /// A second voice in the pace: the place is held whatever the backlog says.
    held: watch::Sender<bool>,
    standing: watch::Receiver<bool>,
    pid: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) async fn start(scene: &Arc<Scene>, slot: u8) -> Result<Self> {
        let part = CAST[usize::from(slot)];
        let process = Arc::new(AtomicU32::new(0));
        let mut links = Vec::with_capacity(scene.nodes.len());
        for (node, &port) in (0_u8..).zip(&scene.nodes) {
            let proxy = TcpProxy::start((Ipv4Addr::LOCALHOST, port).into()).await?;
            let recorder = Recorder {
                log: Arc::clone(&scene.tap_log),
                connections: Arc::clone(&scene.connections),
                process: Arc::clone(&process),
                node,
            };
            let upstream = (Ipv4Addr::LOCALHOST, proxy.port()).into();
            let tap = scene.taps.spawn(Tap::start(upstream, recorder)).await?.context("could not listen for a tap")?;
            links.push(Link { tap, proxy });
        }
        let (orders, inbox) = mpsc::channel(4);
        let (pace, paces) = watch::channel(Pace::Full);
        let (held, holds) = watch::channel(false);
        let (stands, standing) = watch::channel(false);
        let pid = Arc::<AtomicU32>::default();
        let place = Place {
            scene: Arc::clone(scene),
            slot,
            part,
            ports: links.iter().map(|link| link.tap.port()).collect(),
            process,
            pid: Arc::clone(&pid),
            paces,
            holds,
            stands,
        };
        let first = place.spawn()?;
        let task = tokio::spawn(place.keep(first, inbox));
        Ok(Self { part, links, orders, pace, held, standing, pid, task })
    }

    pub(super) fn part(&self) -> Part {
        self.part
    }

    /// Kills the process, and returns when its replacement has been started.
    pub(super) async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// Stops the process as an orchestrator does, and returns when its replacement has been started.
    pub(super) async fn drain(&self) {
        self.order(Order::Drain).await;
    }

    /// Stops the process for good.
    pub(super) async fn finish(&self) {
        self.order(Order::Finish).await;
    }

    async fn order(&self, order: Order) {
        let (done, finished) = oneshot::channel();
        if self.orders.send((order, done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    /// Freezes the process (SIGSTOP) or lets it go on (SIGCONT).
    pub(super) fn freeze(&self, on: bool) {
        let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
        let pid = self.pid.load(Ordering::SeqCst);
        if let Some(pid) = i32::try_from(pid).ok().filter(|&pid| pid > 0) {
            // It may just have ended.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Has the publisher go as fast as this, unless it is held.
    pub(super) fn set_pace(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    /// Holds the publisher, and returns once all that it has begun has an end; or lets it go on. False: it did not stand
    /// still in time.
    pub(super) async fn hold(&self, on: bool, limit: Duration) -> bool {
        self.held.send_replace(on);
        let mut standing = self.standing.clone();
        !on || tokio::time::timeout(limit, standing.wait_for(|&standing| standing))
            .await
            .is_ok_and(|ended| ended.is_ok())
    }

    /// Does something to the process's links to all nodes.
    pub(super) fn links(&self, act: impl Fn(&TcpProxy)) {
        tokio::task::block_in_place(|| self.links.iter().for_each(|link| act(&link.proxy)));
    }

    /// Connections through the links now.
    pub(super) fn connections(&self) -> usize {
        self.links.iter().map(|link| link.proxy.connections()).sum()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The child is killed with the task that has it.
        self.task.abort();
    }
}

/// The keeper's own side.
struct Place {
    scene: Arc<Scene>,
    slot: u8,
    part: Part,
    ports: Vec<u16>,
    process: Arc<AtomicU32>,
    pid: Arc<AtomicU32>,
    paces: watch::Receiver<Pace>,
    holds: watch::Receiver<bool>,
    stands: watch::Sender<bool>,
}

/// What comes after an end.
enum After {
    Replace(Option<oneshot::Sender<()>>),
    Nothing(oneshot::Sender<()>),
}

impl Place {
    async fn keep(mut self, first: (u32, Child), mut inbox: mpsc::Receiver<(Order, oneshot::Sender<()>)>) {
        let (mut process, mut child) = first;
        loop {
            let (status, after) = self.live(process, &mut child, &mut inbox).await;
            self.pid.store(0, Ordering::SeqCst);
            self.scene.log.add(What::Exited { process, code: code_of(status) });
            match after {
                After::Nothing(done) => {
                    let _ = done.send(());
                    return;
                }
                After::Replace(done) => {
                    if done.is_none() {
                        tokio::time::sleep(RESTART_PAUSE).await;
                    }
                    match self.spawn() {
                        Ok(next) => (process, child) = next,
                        // Too many processes, at worst. The checker will miss it.
                        Err(_) => return,
                    }
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

    fn spawn(&self) -> Result<(u32, Child)> {
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
                while recorded("what a process prints", output.read_until(b'\n', &mut line).await) > 0 {
                    if line.trim_ascii() == STANDING.as_bytes() {
                        stands.send_replace(true);
                    } else {
                        recorded("what a process prints", log.write_all(&line));
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
