use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jm_testkit::{RabbitNode, Vhost, WorkerProcess, WorkerProcessBuilder};
use lapin::BasicProperties;

/// Every wait's limit: far above what anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The example's queues.
pub(crate) const TASKS: &str = "example.greet";
pub(crate) const ANSWERS: &str = "example.greeted";

/// The example worker's binary, which cargo builds with the tests.
pub(crate) fn program() -> PathBuf {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    let program = program.join("examples/greet_worker");
    assert!(program.exists(), "build the examples first: cargo build -p jm-service --examples");
    program
}

pub(crate) fn worker() -> WorkerProcessBuilder {
    WorkerProcess::builder(program())
}

pub(crate) async fn vhost() -> Vhost {
    RabbitNode::shared().await.unwrap().vhost().await.unwrap()
}

pub(crate) async fn ready(builder: WorkerProcessBuilder) -> WorkerProcess {
    let worker = builder.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    worker
}

/// Sends a task as a Go service would, but for its id.
pub(crate) async fn send(vhost: &Vhost, id: &str, body: &str) {
    let properties = BasicProperties::default().with_type("example.greet".into()).with_message_id(id.into());
    vhost.publish(TASKS, properties, body.as_bytes()).await.unwrap();
}

/// The example worker where each `file` stands in the place of a path of the system's, for it alone.
pub(crate) fn worker_with(files: &[(&Path, &str)]) -> WorkerProcessBuilder {
    let mounts = files.iter().map(|(file, place)| format!("mount --bind '{}' {place}", file.display()));
    let script: Vec<String> = mounts.chain([format!("exec '{}'", program().display())]).collect();
    unshare().arg("--mount").arg("sh").arg("-c").arg(script.join(" && "))
}

/// Without privileges, namespaces are to be had in a user namespace of one's own.
pub(crate) fn unshare() -> WorkerProcessBuilder {
    let unshare = WorkerProcess::builder("unshare");
    if nix::unistd::geteuid().is_root() { unshare } else { unshare.arg("--user").arg("--map-root-user") }
}
