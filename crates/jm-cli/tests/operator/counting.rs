//! Queues that count how often they deliver a message: looking loses nothing, and what takes a message never refuses.

use std::{fs, time::Duration};

use futures_util::StreamExt as _;
use jm_testkit::Vhost;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    dead_letters::{DEAD, Dead, QUEUE, dead, ids, leave, on, said},
    ground::{jm_with_management, monitoring, node},
    support::{Said, jm_at},
};

const LIMIT: Duration = Duration::from_mins(1);

/// Whether this broker counts a `basic.nack`, and whether it knows a delivery limit of -1.
pub(crate) async fn broker() -> (bool, bool) {
    let version = node().await.unwrap().version().await.unwrap();
    let numbers: Vec<u32> = version.split('.').filter_map(|number| number.parse().ok()).collect();
    ((numbers[0], numbers[1]) < (4, 3), numbers[0] >= 4)
}

/// With a quorum queue for the dead letters, and the management API.
async fn quorum() -> Vhost {
    let vhost = on(node().await.unwrap()).await;
    monitoring(&vhost.user).await.unwrap();
    vhost.delete_queue(DEAD).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    vhost.declare_queue_with(DEAD, true, arguments).await.unwrap();
    vhost
}

/// The same with the limit that RabbitMQ 4 has by itself.
async fn limited() -> Vhost {
    let vhost = quorum().await;
    vhost.set_policy("limit", r"^jm\..+\.dead$", r#"{"delivery-limit": 20}"#).await.unwrap();
    vhost
}

/// Once the management API reports the queue's policy.
async fn jm(vhost: &Vhost) -> Command {
    jm_with_management(vhost).await.unwrap()
}

async fn says(vhost: &Vhost, arguments: &[&str]) -> Said {
    said(jm(vhost).await, arguments).await
}

/// Takes the first message and requeues it, so many times: what the management UI's "Nack message requeue true" does.
async fn return_often(vhost: &Vhost, times: u32) {
    let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for _ in 0..times {
        vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready > 0).await.unwrap();
        let got = channel.basic_get(DEAD.into(), BasicGetOptions::default()).await.unwrap().unwrap();
        got.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
}

/// A worker that dead-letters each task; our own would not declare a quorum queue.
async fn fails_each(vhost: &Vhost) -> Connection {
    let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut tasks = channel.basic_consume(QUEUE.into(), "".into(), options, arguments).await.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(task)) = tasks.next().await {
            let options = BasicPublishOptions::default();
            channel.basic_publish("".into(), DEAD.into(), options, &task.data, task.properties.clone()).await.unwrap();
            task.ack(BasicAckOptions::default()).await.unwrap();
        }
    });
    connection
}

async fn waits(vhost: &Vhost, ready: u64) {
    let wanted = vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == ready && counts.unacked == 0).await;
    wanted.unwrap_or_else(|error| panic!("{ready} dead letters: {error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_look_brings_a_message_to_the_limit_of_a_queue_that_counts_looks() {
    let vhost = limited().await;
    leave(&vhost, [dead("m-1"), dead("m-2")]).await;
    let (counts, _) = broker().await;
    for command in [&["list"][..], &["show"], &["replay", "--dry-run"]] {
        for jm in [jm(&vhost).await, jm_at(&vhost)] {
            let refused = said(jm, ["dead"].iter().chain(command).chain(&[QUEUE])).await;
            if counts {
                assert_eq!((refused.code, refused.err.lines().count()), (2, 1), "{command:?}: {refused:?}");
                assert!(refused.err.contains("--count-deliveries"), "{command:?}: {refused:?}");
            } else {
                assert_eq!((refused.code, refused.err.as_str()), (0, ""), "{command:?}: {refused:?}");
            }
        }
    }
    for round in 0..25 {
        for jm in [jm(&vhost).await, jm_at(&vhost)] {
            let listed = said(jm, ["dead", "list", QUEUE, "--count-deliveries"]).await;
            assert_eq!((listed.code, listed.err.as_str()), (0, ""), "round {round}: {listed:?}");
            assert!(listed.out.ends_with("2 of 2 dead letters in jm.llm.dead\n"), "round {round}: {listed:?}");
            waits(&vhost, 2).await;
        }
    }
    let mut left = ids(&vhost, DEAD).await;
    left.sort();
    assert_eq!(left, ["m-1", "m-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_message_never_refuses_because_of_its_count() {
    let (counts, _) = broker().await;
    // Given out 20 times and returned: once more, and the broker drops it.
    for command in ["drop", "replay"] {
        let vhost = limited().await;
        leave(&vhost, [dead("m-1")]).await;
        return_often(&vhost, if counts { 20 } else { 40 }).await;
        waits(&vhost, 1).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("saved.jsonl");
        if command == "drop" {
            let dropped = says(&vhost, &["dead", "drop", QUEUE, "-y", "--save", file.to_str().unwrap()]).await;
            assert_eq!(dropped.code, 0, "{dropped:?}");
            let saved: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            assert_eq!(saved["properties"]["message_id"], "m-1");
        } else {
            let replayed = says(&vhost, &["dead", "replay", QUEUE]).await;
            assert_eq!((replayed.code, replayed.out.as_str()), (0, "1 put back\n"), "{replayed:?}");
            assert_eq!(ids(&vhost, QUEUE).await, ["m-1"]);
        }
        waits(&vhost, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_chosen_is_still_there_with_all_that_it_had_however_often_others_are_taken() {
    let vhost = limited().await;
    let other = || Dead { error_kind: "timeout", more: vec![("tenant", AMQPValue::LongInt(7))], ..dead("other") };
    leave(&vhost, [other()]).await;
    for round in 0..30 {
        leave(&vhost, [dead("m")]).await;
        let command: &[&str] = if round % 2 == 0 {
            &["dead", "replay", QUEUE, "--kind", "exhausted"]
        } else {
            &["dead", "drop", QUEUE, "-y", "--kind", "exhausted"]
        };
        // A quorum queue's own count of its messages may be some milliseconds old.
        let take = async || Ok(says(&vhost, command).await);
        let taken = crate::ground::told_at_last(take, |taken| taken.out.starts_with("1 ")).await.unwrap();
        assert!(taken.code == 0 && taken.out.starts_with("1 "), "round {round}: {taken:?}");
        waits(&vhost, 1).await;
    }
    let left = vhost.take_all(DEAD).await.unwrap();
    let (properties, body) = other().message();
    assert_eq!((left.len(), &left[0].data), (1, &body));
    let mut headers = FieldTable::default();
    for (name, value) in left[0].properties.headers().as_ref().unwrap() {
        if !["x-delivery-count", "x-acquired-count"].contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    assert_eq!(left[0].properties.clone().with_headers(headers), properties);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_search_loses_nothing_in_a_queue_that_counts() {
    let vhost = limited().await;
    leave(&vhost, (0..3).map(|number| Dead { error_kind: "timeout", ..dead(&number.to_string()) })).await;
    return_often(&vhost, 19).await;
    let failing = fails_each(&vhost).await;
    for round in 0..12 {
        let probed = says(&vhost, &["dead", "replay", QUEUE, "--canary", "1", "--limit", "1"]).await;
        assert_eq!(probed.code, 1, "round {round}: {probed:?}");
        assert!(probed.err.contains("has failed again"), "round {round}: {probed:?}");
        waits(&vhost, 3).await;
    }
    failing.close(200, "".into()).await.unwrap();
    let mut left = ids(&vhost, DEAD).await;
    left.sort();
    assert_eq!(left, ["0", "1", "2"]);
}

/// Sixty looks of each kind, as the runbook for dead letters has them.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_looks_are_free_where_the_shipped_policy_keeps_dead_letters() {
    let vhost = quorum().await;
    let (_, has_unlimited) = broker().await;
    if has_unlimited {
        // As in k8s/components/rabbitmq; RabbitMQ 3 has no limit unless a policy sets one.
        vhost.set_policy("jm.dead", r"^jm\..+\.dead$", r#"{"delivery-limit": -1}"#).await.unwrap();
    }
    leave(&vhost, [dead("m-1")]).await;
    let list = async || Ok(says(&vhost, &["dead", "list", QUEUE]).await);
    let first = crate::ground::told_at_last(list, |said| said.code == 0).await.unwrap();
    assert_eq!(first.code, 0, "{first:?}");
    for round in 0..20 {
        for command in [&["list"][..], &["show"], &["replay", "--dry-run"]] {
            let looked = said(jm(&vhost).await, ["dead"].iter().chain(command).chain(&[QUEUE])).await;
            assert_eq!((looked.code, looked.err.as_str()), (0, ""), "round {round}, {command:?}: {looked:?}");
        }
    }
    let status = says(&vhost, &["status", QUEUE, "--json"]).await;
    let status = status.json().unwrap();
    assert_eq!(status["queues"][0]["oldest_dead_letter"]["error_kind"], "exhausted", "{status:#}");
    assert_eq!(ids(&vhost, DEAD).await, ["m-1"]);
}
