//! A broker that keeps its connections and answers nothing. In a process of its own, since it counts threads and sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say so at once"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use jm_mq_core::{
    Broker, BrokerOptions, ConnectError, Consumer, ConsumerOptions, ConsumerState, Context, HandlerError, Message,
    Outgoing, Port, Publisher, PublisherOptions, Router, Topology,
};
use jm_testkit::RabbitNode;
use tokio::sync::{mpsc, watch};

const LIMIT: Duration = Duration::from_mins(1);

/// Threads of this process, and its sockets.
fn held() -> (usize, usize) {
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    let is_socket = |entry: fs::DirEntry| {
        // A descriptor may be closed while we look.
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let sockets = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    (threads, sockets.map(is_socket).filter(|is| *is).count())
}

async fn state(states: &mut watch::Receiver<ConsumerState>, wanted: fn(&ConsumerState) -> bool) -> ConsumerState {
    tokio::time::timeout(LIMIT, states.wait_for(wanted)).await.expect("in time").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_noticed_within_25_seconds_and_twenty_failed_connects_leave_nothing_behind() {
    let node = RabbitNode::start().await.unwrap();
    let vhost = node.vhost().await.unwrap();
    let options = BrokerOptions {
        port: Some(Port(vhost.port)),
        name: vhost.user.clone(),
        password: vhost.password.as_str().into(),
        vhost: vhost.name.clone(),
        connect_timeout: Duration::from_millis(250),
        ..BrokerOptions::default()
    };
    assert_eq!(options.heartbeat, Duration::from_secs(10));
    let broker = Broker::new(options).unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let (handled, mut seen) = mpsc::unbounded_channel();
    let router = Router::new().on_type("task", move |_: serde_json::Value, _: Context| {
        handled.send(()).unwrap();
        async { Ok::<_, HandlerError>(()) }
    });
    let consumer =
        Consumer::new(&broker, &publisher, Topology::work_queue("frozen"), ConsumerOptions::default(), router).unwrap();
    let running = consumer.start();
    let mut states = running.states();
    tokio::time::timeout(LIMIT, running.ready()).await.expect("ready");

    node.freeze().unwrap();
    let begun = Instant::now();
    state(&mut states, |state| !matches!(state, ConsumerState::Ready)).await;
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());

    // The kernel accepts connections for the frozen broker, so each attempt gets as far as the handshake.
    let mut before = None;
    let mut failed = 0;
    while failed < 25 {
        tokio::time::timeout(LIMIT, states.changed()).await.expect("another attempt").unwrap();
        // The first change is the loss itself.
        let silent =
            matches!(&*states.borrow_and_update(), ConsumerState::Waiting { error: ConnectError::Silent { .. } });
        failed += u32::from(silent);
        if silent && failed == 5 {
            before = Some(held());
        }
    }
    let (threads, sockets) = before.unwrap();
    let (threads_after, sockets_after) = held();
    // One attempt may be under way at either moment.
    assert!(threads_after <= threads + 1, "threads: {threads}, then {threads_after}");
    assert!(sockets_after <= sockets + 1, "sockets: {sockets}, then {sockets_after}");

    node.thaw().unwrap();
    tokio::time::timeout(LIMIT, running.ready()).await.expect("ready again");
    let task = Outgoing::new("frozen", "frozen", Message::new("task", "{}"));
    publisher.publish(&task).await.unwrap();
    tokio::time::timeout(LIMIT, seen.recv()).await.expect("handled").unwrap();
    running.shutdown().await;
}
