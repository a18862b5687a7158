//! Does the faults of a plan, each at its time, and records when each began and when what it broke works again.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use jm_testkit::{QueueCounts, RabbitNode, TcpProxy};
use tokio::{task::JoinSet, time::Instant};

use super::{Keepers, Options, ground::Ground, keeper::Keeper, scene::Scene};
use crate::{
    history::{FaultKind, Role, What},
    message::Queue,
    plan::{Fault, Plan},
};

/// Between two faults of the broker, at least.
const REST: Duration = Duration::from_secs(5);
/// What a broker's start may take.
const START_LIMIT: Duration = Duration::from_secs(90);
/// After that a node that does not start is killed and started again, so often.
const HUNG_LIMIT: Duration = Duration::from_secs(25);
const STARTS: u32 = 4;
/// What emptying a queue before its deletion may take; otherwise it is not deleted.
const EMPTY_LIMIT: Duration = Duration::from_secs(8);

/// Does all of them; returns when the last one is healed.
pub(super) async fn inject(
    options: &Options,
    plan: &Plan,
    scene: &Arc<Scene>,
    ground: &Arc<Ground>,
    keepers: &Keepers,
    began: Instant,
) -> Result<()> {
    let mut under_way = JoinSet::new();
    // The broker's are done one after the other: a node that starts slowly delays the next.
    let (send_heavy, mut heavy) = tokio::sync::mpsc::unbounded_channel::<Injection>();
    let last = began + Duration::from_millis(plan.calm_from_ms());
    under_way.spawn(async move {
        while let Some(injection) = heavy.recv().await {
            if Instant::now() > last {
                // Those before it took too long.
                break;
            }
            injection.run().await;
            // Where a node took long to start, the next fault would else come before anybody has recovered.
            tokio::time::sleep(REST).await;
        }
    });
    for &fault in &plan.faults {
        tokio::time::sleep_until(began + Duration::from_millis(fault.at_ms)).await;
        let (ground, scene) = (Arc::clone(ground), Arc::clone(scene));
        let options = options.clone();
        let injection = Injection { fault, ground, keepers: Arc::clone(keepers), scene, options };
        if fault.slot == crate::history::EVERYONE {
            let _ = send_heavy.send(injection);
        } else {
            under_way.spawn(injection.run());
        }
    }
    drop(send_heavy);
    while let Some(ended) = under_way.join_next().await {
        ended?;
    }
    Ok(())
}

/// One fault with what it is done to.
struct Injection {
    fault: Fault,
    ground: Arc<Ground>,
    keepers: Keepers,
    scene: Arc<Scene>,
    options: Options,
}

impl Injection {
    async fn run(self) {
        let Fault { number: fault, kind, slot, .. } = self.fault;
        self.scene.log.add(What::FaultBegan { fault, kind, slot });
        match self.act().await {
            Ok(true) => self.scene.log.add(What::FaultHealed { fault }),
            // A fault that could not be done is none.
            Ok(false) => self.scene.log.add(What::FaultVoid { fault }),
            Err(error) => {
                self.scene.log.add(What::FaultVoid { fault });
                self.options.say(format_args!("fault {} could not be done: {error:#}", self.fault));
            }
        }
    }

    fn lasts(&self) -> Duration {
        Duration::from_millis(self.fault.lasts_ms)
    }

    fn keeper(&self) -> Result<&Keeper> {
        self.keepers.get(&self.fault.slot).context("nobody stands there")
    }

    /// Does it and undoes it. False: there was nothing to do it to.
    async fn act(&self) -> Result<bool> {
        match self.fault.kind {
            FaultKind::LinkCut
            | FaultKind::LinkReset
            | FaultKind::MidFrameReset
            | FaultKind::SlowLink
            | FaultKind::SlicedLink
            | FaultKind::StalledLink
            | FaultKind::Partition
            | FaultKind::Refused => self.link().await,
            FaultKind::WorkerKill | FaultKind::PublisherKill => {
                self.keeper()?.kill().await;
                Ok(true)
            }
            FaultKind::WorkerDrain => {
                self.keeper()?.drain().await;
                Ok(true)
            }
            FaultKind::WorkerFreeze => {
                self.keeper()?.freeze(true);
                tokio::time::sleep(self.lasts()).await;
                self.keeper()?.freeze(false);
                Ok(true)
            }
            FaultKind::CloseAll => Ok(self.ground.vhost().close_connections("CHAOS").await? > 0),
            FaultKind::BrokerKill => self.kill_node(self.fault.size).await,
            FaultKind::BrokerFreeze => self.freeze_node().await,
            FaultKind::MemoryAlarm | FaultKind::DiskAlarm => self.alarm().await,
            FaultKind::PermissionLoss => self.permissions().await,
            FaultKind::QueueDeletion => self.delete_queue().await,
            FaultKind::LeaderKill => self.kill_leader().await,
            FaultKind::DependencyLoss => self.lose_dependency().await,
        }
    }

    /// What all handlers depend on is away for some time.
    async fn lose_dependency(&self) -> Result<bool> {
        let file = &self.scene.job.outage;
        fs::write(file, "").with_context(|| format!("could not write {}", file.display()))?;
        tokio::time::sleep(self.lasts()).await;
        fs::remove_file(file).with_context(|| format!("could not remove {}", file.display()))?;
        Ok(true)
    }

    async fn link(&self) -> Result<bool> {
        let keeper = self.keeper()?;
        if keeper.connections() == 0 {
            return Ok(false);
        }
        let size = self.fault.size;
        let bytes = usize::try_from(size)?;
        match self.fault.kind {
            FaultKind::LinkCut => keeper.links(TcpProxy::cut),
            FaultKind::LinkReset => keeper.links(TcpProxy::reset),
            FaultKind::MidFrameReset => keeper.links(|link| link.reset_after(size)),
            FaultKind::SlowLink => keeper.links(|link| link.delay(Some(Duration::from_millis(size)))),
            FaultKind::SlicedLink => keeper.links(|link| link.slice(Some(bytes))),
            FaultKind::StalledLink => keeper.links(|link| link.stall(true)),
            FaultKind::Partition => keeper.links(|link| link.swallow(true)),
            _ => keeper.links(|link| {
                link.refuse(true);
                link.reset();
            }),
        }
        if self.fault.lasts_ms > 0 {
            tokio::time::sleep(self.lasts()).await;
            keeper.links(TcpProxy::heal);
        }
        Ok(true)
    }

    async fn kill_node(&self, node: u64) -> Result<bool> {
        self.kill(&self.ground.nodes[usize::try_from(node)? % self.ground.nodes.len()]).await
    }

    async fn kill(&self, node: &RabbitNode) -> Result<bool> {
        node.kill().await?;
        tokio::time::sleep(self.lasts()).await;
        // A node of a cluster that is back before the others have missed it may hang in its start: an orchestrator would
        // kill it again.
        for _ in 1..STARTS {
            node.start_again().await?;
            if node.wait_until_up(HUNG_LIMIT).await.is_ok() {
                return Ok(true);
            }
            node.kill().await?;
        }
        node.start_again().await?;
        node.wait_until_up(START_LIMIT).await?;
        Ok(true)
    }

    async fn freeze_node(&self) -> Result<bool> {
        let node = &self.ground.nodes[usize::try_from(self.fault.size)? % self.ground.nodes.len()];
        node.freeze()?;
        tokio::time::sleep(self.lasts()).await;
        node.thaw()?;
        node.wait_until_up(START_LIMIT).await?;
        Ok(true)
    }

    async fn alarm(&self) -> Result<bool> {
        let node = &self.ground.nodes[0];
        let memory = self.fault.kind == FaultKind::MemoryAlarm;
        let set = async |on| if memory { node.memory_alarm(on).await } else { node.disk_alarm(on).await };
        let raised = set(true).await;
        tokio::time::sleep(self.lasts()).await;
        // Also when raising it was not seen to succeed.
        set(false).await?;
        raised.map(|()| true)
    }

    async fn permissions(&self) -> Result<bool> {
        let vhost = self.ground.vhost();
        let lost = async {
            vhost.clear_permissions(&vhost.user).await?;
            // Open channels may go on by what they have cached.
            vhost.close_connections("CHAOS").await
        };
        let lost = lost.await;
        tokio::time::sleep(self.lasts()).await;
        vhost.set_permissions(&vhost.user, ".*", ".*", ".*").await?;
        lost.map(|closed| closed > 0)
    }

    /// What is in a deleted queue is discarded by the broker, and nobody's loss: so it is deleted only when all that was
    /// published to it has been settled.
    async fn delete_queue(&self) -> Result<bool> {
        let (queue, vhost) = (Queue::Gone, self.ground.vhost());
        let publishers = || {
            self.keepers.values().filter(|keeper| keeper.part().role == Role::Publisher && keeper.part().queue == queue)
        };
        let mut standing = true;
        for publisher in publishers() {
            standing &= publisher.hold(true, EMPTY_LIMIT).await;
        }
        let empty = vhost.wait_for_counts(queue.name(), EMPTY_LIMIT, QueueCounts::is_empty).await;
        let deleted = match empty {
            Ok(_) if standing => vhost.delete_queue(queue.name()).await.map(|_| true),
            Ok(_) | Err(_) => Ok(false),
        };
        for publisher in publishers() {
            publisher.hold(false, EMPTY_LIMIT).await;
        }
        deleted
    }

    async fn kill_leader(&self) -> Result<bool> {
        let queue = Queue::ALL[usize::try_from(self.fault.size)? % Queue::ALL.len()];
        let leader = self.ground.leader_of(queue).await?;
        self.kill(leader).await
    }
}
