//! What all processes of a campaign have in common: where they are, what they are told, and where it is recorded.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU32},
    thread,
};

use anyhow::{Context, Result};
use tokio::{runtime::Handle, sync::oneshot};

use super::{Numbers, Options, ground::Ground};
use crate::{
    cast::CAST,
    child::{Deviation, Job},
    history::Log,
    plan::Plan,
};

/// What all processes of a campaign have in common.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) folder: PathBuf,
    pub(super) log: Arc<Log>,
    pub(super) tap_log: Arc<Log>,
    pub(super) taps: Handle,
    /// Ends the taps' thread when dropped.
    _taps_end: oneshot::Sender<()>,
    pub(super) connections: Arc<AtomicU32>,
    pub(super) processes: Numbers,
    /// A job without number and place.
    pub(super) job: Job,
    pub(super) program: PathBuf,
    pub(super) deviation: Option<(u8, Deviation)>,
    pub(super) nodes: Vec<u16>,
}

impl Scene {
    pub(super) fn set(
        options: &Options,
        plan: &Plan,
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
            seed: plan.seed,
            ports: Vec::new(),
            user: vhost.user.clone(),
            password: vhost.password.clone(),
            vhost: vhost.name.clone(),
            history: PathBuf::new(),
            declared: ground.declared,
            requeue: plan.setting.requeue,
            outage: folder.join("outage"),
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
