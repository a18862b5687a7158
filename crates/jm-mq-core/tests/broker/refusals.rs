//! What a consumer does when the broker says no: to a declaration, to an answer, to a dead letter, to a user.

use std::time::Duration;

use jm_mq_core::{
    BrokerOptions, ConsumerOptions, ConsumerState, ExchangeKind, Message, Outgoing, PublisherOptions, Router, Topology,
    metrics,
};
use jm_testkit::RabbitNode;
use lapin::{
    BasicProperties,
    options::ExchangeDeclareOptions,
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    Bench, Record, broker_options, logs, metric, metric_reaches, not_ready, one_worker, quick, recording, waiting,
    within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_one_clear_error_slow_retries_and_nobody_elses_trouble() {
    let logs = logs();
    let bench = Bench::shared().await;
    let mut other = FieldTable::default();
    other.insert("x-max-length".into(), AMQPValue::LongInt(10));
    bench.vhost.declare_queue_with("o.other", true, other).await.unwrap();
    let runs = Record::new();
    let running = bench.consumer("o.other", quick(), recording(&runs, |_| async { Ok(()) })).start();
    let fine = bench.consume("o.fine", quick(), recording(&runs, |_| async { Ok(()) })).await;

    let error = waiting(&running).await;
    assert!(error.is_fatal());
    let text = error.to_string();
    for word in ["queue `o.other` (durable, no arguments)", "x-max-length", "set `declare` to `check`"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    bench.send("o.fine", "task", "1", "{}").await;
    runs.reaches(1).await;
    assert!(fine.is_ready() && !running.is_ready());

    bench.vhost.delete_queue("o.other").await.unwrap();
    within("ready once it is mended", running.ready()).await;
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let reports = log.lines().filter(|line| line.contains("ERROR") && line.contains("\"o.other\"")).count();
    assert_eq!(reports, 1, "reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_reaches_nobody_keeps_its_task_unacked_until_it_does() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |_| async { Ok(Outgoing::new("o.results", "key", Message::new("done", "yes"))) });
    let topology = Topology::new("o.results", "o.results", ExchangeKind::Direct, "key");
    bench.publisher.declare(&topology).await.unwrap();
    let _running = bench.consume("o.unroutable", one_worker(), router).await;
    let faults: [&str; 2] = ["unbound", "deleted"];
    for (n, fault) in faults.into_iter().enumerate() {
        match fault {
            "unbound" => bench.vhost.unbind("o.results", "o.results", "key").await.unwrap(),
            _ => bench.vhost.delete_exchange("o.results").await.unwrap(),
        }
        let failed = metric("jm_mq_publishes_total", &[("exchange", "o.results"), ("outcome", "unroutable")]);
        bench.send("o.unroutable", "task", &n.to_string(), "{}").await;
        metric_reaches("jm_mq_publishes_total", &[("exchange", "o.results"), ("outcome", "unroutable")], failed + 6.0)
            .await;
        assert!(!bench.vhost.queue_counts("o.unroutable").await.unwrap().is_empty());
        bench.publisher.declare(&topology).await.unwrap();
        bench.settled("o.unroutable").await;
        assert_eq!(bench.vhost.take_all("o.results").await.unwrap().len(), 1, "{fault}");
        assert_eq!(runs.len(), n + 1, "the handler's result was kept, and it ran once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_answer_keeps_its_task_and_a_full_dead_letter_queue_keeps_its_message() {
    let bench = Bench::shared().await;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    bench.vhost.declare_queue_with("o.full", true, full.clone()).await.unwrap();
    bench.vhost.publish("o.full", BasicProperties::default(), b"in the way").await.unwrap();
    let runs = Record::new();
    // By an exchange of its own, whose publishes no other test counts.
    let channel = bench.vhost.channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let kind = lapin::ExchangeKind::Direct;
    channel.exchange_declare("o.full".into(), kind, durable, FieldTable::default()).await.unwrap();
    bench.vhost.bind("o.full", "o.full", "key").await.unwrap();
    let router = recording(&runs, |_| async { Ok(Outgoing::new("o.full", "key", Message::new("done", "yes"))) });
    let _running = bench.consume("o.refused", one_worker(), router).await;
    bench.send("o.refused", "task", "1", "{}").await;
    runs.reaches(1).await;
    // Past the fourth, after which its attempts are exhausted and it goes back to the queue with its answer kept.
    metric_reaches("jm_mq_publishes_total", &[("exchange", "o.full"), ("outcome", "refused")], 6.0).await;
    assert!(!bench.vhost.queue_counts("o.refused").await.unwrap().is_empty());
    bench.vhost.purge_queue("o.full").await.unwrap();
    bench.settled("o.refused").await;
    assert_eq!(runs.len(), 1);

    let policy = r#"{"max-length": 1, "overflow": "reject-publish"}"#;
    bench.vhost.set_policy("full", "^o\\.refused\\.dead$", policy).await.unwrap();
    bench.vhost.publish("o.refused.dead", BasicProperties::default(), b"in the way").await.unwrap();
    let refused = metric("jm_mq_publishes_total", &[("exchange", metrics::DEFAULT_EXCHANGE), ("outcome", "refused")]);
    bench.send("o.refused", "other", "2", "{}").await;
    metric_reaches(
        "jm_mq_publishes_total",
        &[("exchange", metrics::DEFAULT_EXCHANGE), ("outcome", "refused")],
        refused + 2.0,
    )
    .await;
    assert!(!bench.vhost.queue_counts("o.refused").await.unwrap().is_empty());
    bench.vhost.purge_queue("o.refused.dead").await.unwrap();
    bench.settled("o.refused").await;
    assert_eq!(bench.vhost.take_all("o.refused.dead").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_refused_for_a_second_makes_no_dead_letter() {
    let bench = Bench::shared().await;
    // As a quorum queue between two leaders, by an exchange of its own, whose publishes no other test counts.
    bench.publisher.declare(&Topology::work_queue("o.leaderless")).await.unwrap();
    let full = r#"{"max-length": 1, "overflow": "reject-publish"}"#;
    bench.vhost.set_policy("leaderless", "^o\\.leaderless$", full).await.unwrap();
    bench.vhost.publish("o.leaderless", BasicProperties::default(), b"in the way").await.unwrap();
    let runs = Record::new();
    let answer = |_| async { Ok(Outgoing::new("o.leaderless", "o.leaderless", Message::new("done", "yes"))) };
    let options = ConsumerOptions { nack_requeue: false, ..one_worker() };
    let _running = bench.consume("o.patient", options, recording(&runs, answer)).await;
    bench.send("o.patient", "task", "1", "{}").await;
    metric_reaches("jm_mq_publishes_total", &[("exchange", "o.leaderless"), ("outcome", "refused")], 1.0).await;
    // What an election takes; all attempts were over by then, if only `retry_base_delay` were waited.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.vhost.purge_queue("o.leaderless").await.unwrap();
    bench.settled("o.patient").await;
    assert_eq!(bench.vhost.take_all("o.leaderless").await.unwrap().len(), 1);
    assert_eq!(bench.vhost.take_all("o.patient.dead").await.unwrap().len(), 0);
    assert_eq!(runs.len(), 1, "the handler's result was kept, and it ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_user_may_not_publish_is_the_operators_trouble_and_keeps_its_task() {
    let bench = Bench::shared().await;
    let vhost = &bench.vhost;
    bench.publisher.declare(&Topology::work_queue("o.forbidden")).await.unwrap();
    let user = format!("reader of {}", vhost.name);
    vhost.add_user(&user, "word").await.unwrap();
    vhost.set_permissions(&user, ".*", "^(?!o\\.forbidden$)", ".*").await.unwrap();
    let options = BrokerOptions { name: user.clone(), password: "word".into(), ..broker_options(vhost, vhost.port) };
    let bench = Bench::with(bench.vhost.clone(), options, PublisherOptions::default());
    let runs = Record::new();
    let answer = |_| async { Ok(Outgoing::new("o.forbidden", "o.forbidden", Message::new("done", "yes"))) };
    let _running = bench.consume("o.asked", one_worker(), recording(&runs, answer)).await;
    bench.send("o.asked", "task", "1", "{}").await;
    // Past the fourth, after which its attempts are exhausted and it goes back to the queue with its answer kept.
    let forbidden = [("exchange", "o.forbidden"), ("outcome", "forbidden")];
    metric_reaches(metrics::PUBLISHES, &forbidden, 6.0).await;
    bench.vhost.set_permissions(&user, ".*", ".*", ".*").await.unwrap();
    bench.settled("o.asked").await;
    assert_eq!(bench.vhost.take_all("o.forbidden").await.unwrap().len(), 1);
    assert!(bench.vhost.take_all("o.asked.dead").await.unwrap().is_empty());
    assert_eq!(runs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_that_was_deleted_is_declared_again() {
    let bench = Bench::shared().await;
    let _running = bench.consume("o.redeclared", one_worker(), Router::new().on_type("task", ok)).await;
    bench.vhost.delete_queue("o.redeclared.dead").await.unwrap();
    bench.send("o.redeclared", "unknown", "1", "{}").await;
    assert_eq!(bench.dead("o.redeclared", 1).await.len(), 1);
    bench.settled("o.redeclared").await;
}

async fn ok(_: serde_json::Value, _: jm_mq_core::Context) -> Result<(), jm_mq_core::HandlerError> {
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rights_are_clear_errors_and_are_recovered_from_without_a_restart_or_a_leaked_secret() {
    const CANARY: &str = "c4n@ry/:%-word";
    let logs = logs();
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let vhost = &bench.vhost;
    vhost.add_user("canary-user", CANARY).await.unwrap();
    vhost.set_permissions("canary-user", ".*", ".*", ".*").await.unwrap();
    let options =
        BrokerOptions { name: "canary-user".into(), password: CANARY.into(), ..broker_options(vhost, node.port()) };
    let bench = Bench::with(vhost.clone(), options, PublisherOptions::default());
    let vhost = &bench.vhost;
    let runs = Record::new();
    let running = bench.consume("o.rights", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let mut errors = Vec::new();
    for fault in ["permissions", "password", "vhost"] {
        match fault {
            "permissions" => vhost.clear_permissions("canary-user").await.unwrap(),
            "password" => vhost.change_password("canary-user", "another").await.unwrap(),
            _ => vhost.delete().await.unwrap(),
        }
        if fault != "vhost" {
            vhost.close_connections("on purpose").await.unwrap();
        }
        not_ready(&running).await;
        let mut states = running.states();
        let refused = |state: &ConsumerState| matches!(state, ConsumerState::Waiting { error } if error.is_fatal());
        let state = within("refused", states.wait_for(refused)).await.unwrap().clone();
        errors.push(format!("{fault}: {state:?}"));
        let ConsumerState::Waiting { error } = state else { unreachable!() };
        let text = error.to_string();
        assert!(text.contains("canary-user") || text.contains("permission"), "{fault}: {text}");
        match fault {
            "permissions" => vhost.set_permissions("canary-user", ".*", ".*", ".*").await.unwrap(),
            "password" => vhost.change_password("canary-user", CANARY).await.unwrap(),
            _ => {
                vhost.create().await.unwrap();
                vhost.set_permissions("canary-user", ".*", ".*", ".*").await.unwrap();
            }
        }
        within("ready again", running.ready()).await;
    }
    bench.send("o.rights", "task", "1", "{}").await;
    runs.reaches(1).await;
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let escaped = "c4n%40ry%2F%3A%25%2Dword";
    for output in errors.iter().chain([&log, &format!("{:?} {:?}", bench.broker, running)]) {
        assert!(!output.contains(CANARY) && !output.contains(escaped), "{output}");
    }
    assert!(log.contains("o.rights"), "the log was looked at");
}
