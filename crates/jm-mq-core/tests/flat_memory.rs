//! Two hundred thousand messages through one process. In a process of its own, since it measures its memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say so at once"
)]

use std::{fs, sync::Arc, time::Duration};

use jm_mq_core::{
    Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Message, Outgoing, Port, Publisher,
    PublisherOptions, RawMessage, Router, Topology,
};
use jm_testkit::RabbitNode;
use tokio::sync::Semaphore;

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_over_two_hundred_thousand_messages() {
    const ROUNDS: usize = 20;
    const ROUND: usize = 10_000;
    let node = RabbitNode::start().await.unwrap();
    let vhost = node.vhost().await.unwrap();
    let broker = Broker::new(BrokerOptions {
        port: Some(Port(vhost.port)),
        name: vhost.user.clone(),
        password: vhost.password.as_str().into(),
        vhost: vhost.name.clone(),
        ..BrokerOptions::default()
    })
    .unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let handled = Arc::new(Semaphore::new(0));
    let router = Router::new().fallback({
        let handled = Arc::clone(&handled);
        move |_: RawMessage, _: Context| {
            handled.add_permits(1);
            async { Ok::<_, HandlerError>(()) }
        }
    });
    let options = ConsumerOptions { prefetch_per_worker: 50, ..ConsumerOptions::default() };
    let consumer = Consumer::new(&broker, &publisher, Topology::work_queue("flat"), options, router).unwrap();
    let running = consumer.start();
    running.ready().await;

    let mut resident = Vec::new();
    for round in 0..ROUNDS {
        let task = |n| {
            Outgoing::new("flat", "flat", Message::new("task", vec![b'x'; 256]).message_id(&format!("{round}-{n}")))
        };
        let batch: Vec<Outgoing> = (0..ROUND).map(task).collect();
        assert!(publisher.publish_all(&batch).await.iter().all(Result::is_ok));
        let all = handled.acquire_many(u32::try_from(ROUND).unwrap());
        tokio::time::timeout(Duration::from_mins(1), all).await.expect("handled in time").unwrap().forget();
        if round % 4 == 1 {
            // Results kept for a lost connection must not pile up either.
            vhost.close_connections("on purpose").await.unwrap();
            vhost
                .wait_for_counts("flat", Duration::from_secs(30), |counts| counts.is_empty() && counts.consumers == 10)
                .await
                .unwrap();
            // What was redelivered was counted twice.
            handled.forget_permits(handled.available_permits());
        }
        resident.push(resident_kib());
    }
    let (early, late) = (resident[ROUNDS / 4 - 1], resident[ROUNDS - 1]);
    println!("resident after each {ROUND} messages, KiB: {resident:?}");
    assert!(
        late < early + 12 * 1024,
        "grew from {early} to {late} KiB over {} messages: {resident:?}",
        ROUNDS * ROUND * 3 / 4
    );
    let report = running.shutdown().await;
    assert_eq!(report.cut_off, 0);
}
