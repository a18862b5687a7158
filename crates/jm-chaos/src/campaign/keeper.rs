//! What the campaign does to a process from outside: it has it killed or stopped, freezes it, makes its links bad.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use jm_testkit::TcpProxy;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    place::{Order, Place},
    scene::Scene,
};
use crate::{
    cast::{CAST, Part},
    child::Pace,
    tap::{Recorder, Tap},
};

/// The way from a process to one node: tap, then a link that can be made bad.
#[derive(Debug)]
struct Link {
    tap: Tap,
    proxy: TcpProxy,
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
