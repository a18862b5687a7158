//! Looks at the queues while the campaign goes on, and holds the publishers back where the workers are behind.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::{Keepers, ground::Ground, options::Progress};
use crate::{
    child::Pace,
    history::{Log, What},
    message::Queue,
};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// More waiting messages than this, and the publishers slow down; fewer than the second, and they go on.
const MUCH: u64 = 4_000;
const LITTLE: u64 = 1_500;

#[derive(Debug)]
pub(super) struct Watch {
    task: JoinHandle<()>,
}

impl Watch {
    pub(super) fn start(ground: Arc<Ground>, keepers: Keepers, log: Arc<Log>, mut progress: Progress) -> Self {
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let mut pace = Pace::Full;
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Ok(backlog) = ground.backlog().await else {
                    progress.tell(began.elapsed(), format_args!("no node answers"));
                    continue;
                };
                log.add_all(backlog.iter().map(|&(queue, counts)| What::Backlog {
                    queue,
                    ready: counts.ready,
                    unacked: counts.unacked,
                    consumers: counts.consumers,
                }));
                let waiting: u64 = backlog.iter().map(|(_, counts)| counts.ready).sum();
                let consumers: u64 = backlog.iter().map(|(_, counts)| counts.consumers).sum();
                let wanted = match waiting {
                    MUCH.. => Pace::Slow,
                    ..=LITTLE => Pace::Full,
                    _ => pace,
                };
                if wanted != pace {
                    pace = wanted;
                    keepers.values().for_each(|keeper| keeper.set_pace(pace));
                }
                let most =
                    backlog.iter().max_by_key(|(_, counts)| counts.ready).map_or(Queue::Work, |&(queue, _)| queue);
                progress.tell(
                    began.elapsed(),
                    format_args!("{waiting} messages wait, most in {}; {consumers} consumers", most.name()),
                );
            }
        });
        Self { task }
    }

    pub(super) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
