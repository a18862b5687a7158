//! The broker that these tests share: one with the management API.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use jm_testkit::{RabbitNode, Vhost};
use tokio::{
    process::Command,
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::support::{Said, jm_at};

pub(crate) const PLUGIN: &str = "rabbitmq_management";

/// The management API tells of a queue's policy with its next statistics.
const TOLD_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

static NODE: OnceCell<std::result::Result<RabbitNode, String>> = OnceCell::const_new();

/// Started by the first test that asks, and well when it leaves it.
pub(crate) async fn node() -> Result<&'static RabbitNode> {
    let start = async || {
        // Statistics each second instead of each fifth.
        let node = RabbitNode::builder().plugin(PLUGIN).config_line("collect_statistics_interval = 1000");
        node.start().await.map_err(|error| format!("{error:#}"))
    };
    NODE.get_or_init(start).await.as_ref().map_err(|error| anyhow!("no broker: {error}"))
}

/// A virtual host whose user may use the management API.
pub(crate) async fn vhost() -> Result<Vhost> {
    let vhost = node().await?.vhost().await?;
    monitoring(&vhost.user).await?;
    Ok(vhost)
}

/// Gives a user the tag that the management API asks for.
pub(crate) async fn monitoring(user: &str) -> Result<()> {
    monitoring_on(node().await?, user).await
}

/// The same on another broker.
pub(crate) async fn monitoring_on(node: &RabbitNode, user: &str) -> Result<()> {
    let tag = format!("rabbit_auth_backend_internal:set_tags(<<\"{user}\">>, [monitoring], <<\"test\">>)");
    node.eval(&tag).await.map(drop)
}

/// `jm` for a virtual host, with the management API.
pub(crate) async fn jm_with_management(vhost: &Vhost) -> Result<Command> {
    let port = node().await?.http_port(PLUGIN).context("a port of the management API")?;
    let mut command = jm_at(vhost);
    command.env("JM_MANAGEMENT__URL", format!("http://127.0.0.1:{port}"));
    Ok(command)
}

/// Asks until the answer is as wanted; the last answer if it never is.
pub(crate) async fn told_at_last(ask: impl AsyncFn() -> Result<Said>, wanted: impl Fn(&Said) -> bool) -> Result<Said> {
    let deadline = Instant::now() + TOLD_LIMIT;
    loop {
        let said = ask().await?;
        if wanted(&said) || Instant::now() >= deadline {
            return Ok(said);
        }
        sleep(LOOK).await;
    }
}
