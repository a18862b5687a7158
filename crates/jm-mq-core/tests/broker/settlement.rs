//! Every row of the settlement table.

use std::time::Duration;

use jm_mq_core::{ConsumerOptions, DeadLetter, HandlerError, Message, Outgoing};
use lapin::{BasicProperties, types::AMQPValue};

use crate::support::{
    Bench, FailFirst, Gate, LIMIT, Record, header, metric_becomes, one_worker, quick, recording, text_header,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_success_is_acked_after_its_answers_are_in_their_queue() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("answers").await.unwrap();
    let runs = Record::new();
    let router = recording(&runs, |_| async {
        Ok(Outgoing::to_queue("answers", Message::new("done", "yes").correlation_id("record-1")))
    });
    let running = bench.consume("s.ok", one_worker(), router).await;
    bench.send("s.ok", "task", "1", "{}").await;
    bench.settled("s.ok").await;
    assert_eq!(runs.all(), [("1".to_owned(), 1)]);
    let answers = bench.vhost.take_all("answers").await.unwrap();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].data, b"yes");
    metric_becomes("jm_mq_deliveries_total", &[("queue", "s.ok"), ("type", "task"), ("outcome", "ack")], 1.0).await;
    assert_eq!(running.shutdown().await.cut_off, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retryable_error_is_tried_again_up_to_the_limit_and_then_acked() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let failures = FailFirst::new(3);
    let router = recording(&runs, move |_| {
        let fails = failures.fails();
        async move { if fails { Err("busy".into()) } else { Ok(()) } }
    });
    let _running = bench.consume("s.retry", one_worker(), router).await;
    bench.send("s.retry", "task", "1", "{}").await;
    bench.settled("s.retry").await;
    let attempts: Vec<u32> = runs.reaches(4).await.into_iter().map(|(_, attempt)| attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    metric_becomes("jm_mq_retries_total", &[("queue", "s.retry"), ("reason", "error")], 3.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_attempts_are_requeued_when_nack_requeue_is_on() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |cx| async move {
        // The fifth run is the first one of the message's second life.
        if cx.envelope().redelivered() { Ok(()) } else { Err("always".into()) }
    });
    let _running = bench.consume("s.requeue", one_worker(), router).await;
    bench.send("s.requeue", "task", "1", "{}").await;
    bench.settled("s.requeue").await;
    let attempts: Vec<u32> = runs.reaches(5).await.into_iter().map(|(_, attempt)| attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 1]);
    metric_becomes("jm_mq_nacks_total", &[("queue", "s.requeue"), ("requeue", "true")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_attempts_are_dead_lettered_when_nack_requeue_is_off() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |_| async { Err::<(), _>(HandlerError::retryable("engine is down")) });
    let _running = bench.consume("s.exhausted", ConsumerOptions { nack_requeue: false, ..one_worker() }, router).await;
    bench.send("s.exhausted", "task", "1", r#"{"a": 1}"#).await;
    let dead = bench.dead("s.exhausted", 1).await;
    bench.settled("s.exhausted").await;
    assert_eq!(runs.len(), 4);
    assert_eq!(dead[0].data, br#"{"a": 1}"#);
    assert_eq!(text_header(&dead[0], "jm-error-kind"), "exhausted");
    assert_eq!(text_header(&dead[0], "x-exception-message"), "engine is down");
    assert_eq!(header(&dead[0], "jm-attempts"), Some(&AMQPValue::LongUInt(4)));
    assert!(text_header(&dead[0], "jm-worker").contains("test@"));
    assert_eq!(dead[0].properties.message_id().as_ref().unwrap().as_str(), "1");
    let first: jiff::Timestamp = text_header(&dead[0], "jm-first-failed-at").parse().unwrap();
    let last: jiff::Timestamp = text_header(&dead[0], "jm-failed-at").parse().unwrap();
    assert!(first < last);
    metric_becomes("jm_mq_dead_letters_total", &[("queue", "s.exhausted"), ("kind", "exhausted")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_error_is_dead_lettered_without_a_retry_whatever_nack_requeue_says() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |_| async { Err::<(), _>(HandlerError::permanent("no such record")) });
    let _running = bench.consume("s.permanent", one_worker(), router).await;
    bench.send("s.permanent", "task", "1", "{}").await;
    let dead = bench.dead("s.permanent", 1).await;
    assert_eq!(text_header(&dead[0], "jm-error-kind"), "permanent");
    assert_eq!(runs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_and_panics_are_retried_and_then_dead_lettered_by_their_kind() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |cx| async move {
        if cx.message_id() == Some("hangs") {
            std::future::pending::<()>().await;
        }
        assert_ne!(cx.message_id(), Some("panics"), "on purpose");
        Ok(())
    });
    let options = ConsumerOptions {
        nack_requeue: false,
        max_retry_attempts: 1,
        handler_timeout: Duration::from_millis(50),
        ..one_worker()
    };
    let _running = bench.consume("s.broken", options, router).await;
    for id in ["hangs", "panics", "works"] {
        bench.send("s.broken", "task", id, "{}").await;
    }
    let dead = bench.dead("s.broken", 2).await;
    bench.settled("s.broken").await;
    assert_eq!(text_header(&dead[0], "jm-error-kind"), "timeout");
    assert!(text_header(&dead[0], "x-exception-message").contains("50ms"));
    assert_eq!(text_header(&dead[1], "jm-error-kind"), "panic");
    assert!(text_header(&dead[1], "x-exception-message").contains("on purpose"));
    let ids: Vec<String> = runs.all().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["hangs", "hangs", "panics", "panics", "works"]);
    metric_becomes("jm_mq_retries_total", &[("queue", "s.broken"), ("reason", "timeout")], 1.0).await;
    metric_becomes("jm_mq_retries_total", &[("queue", "s.broken"), ("reason", "panic")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_handled_is_dead_lettered_unrun() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { max_body_bytes: 100, ..one_worker() };
    let _running = bench.consume("s.unrun", options, recording(&runs, |_| async { Ok(()) })).await;
    bench.send("s.unrun", "task", "undecodable", "{").await;
    bench.send("s.unrun", "other", "unknown type", "{}").await;
    bench.vhost.publish("s.unrun", BasicProperties::default(), b"{}").await.unwrap();
    bench.send("s.unrun", "task", "too large", &format!("\"{}\"", "x".repeat(99))).await;
    bench.send("s.unrun", "task", "largest", &format!("\"{}\"", "x".repeat(98))).await;
    let dead = bench.dead("s.unrun", 4).await;
    bench.settled("s.unrun").await;
    let kinds: Vec<String> = dead.iter().map(|dead| text_header(dead, "jm-error-kind")).collect();
    assert_eq!(kinds, ["undecodable", "unknown_type", "unknown_type", "too_large"]);
    assert_eq!(runs.all(), [("largest".to_owned(), 1)]);
    for (kind, count) in [("undecodable", 1.0), ("unknown_type", 2.0), ("too_large", 1.0)] {
        metric_becomes("jm_mq_dead_letters_total", &[("queue", "s.unrun"), ("kind", kind)], count).await;
    }
    metric_becomes("jm_mq_deliveries_total", &[("queue", "s.unrun"), ("type", "other")], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_brokers_dead_lettering_the_policy_decides_where_a_message_goes() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("policy.dead").await.unwrap();
    let definition = r#"{"dead-letter-exchange": "", "dead-letter-routing-key": "policy.dead"}"#;
    bench.vhost.set_policy("dlx", "^s\\.policy$", definition).await.unwrap();
    let runs = Record::new();
    let options = ConsumerOptions { dead_letter: DeadLetter::Broker, ..one_worker() };
    let router = recording(&runs, |_| async { Err::<(), _>(HandlerError::permanent("no")) });
    let _running = bench.consume("s.policy", options, router).await;
    bench.send("s.policy", "task", "1", "{}").await;
    bench.ready("policy.dead", 1).await;
    let dead = bench.vhost.take_all("policy.dead").await.unwrap();
    assert!(header(&dead[0], "x-death").is_some(), "the broker moved it");
    assert!(!bench.vhost.queue_exists("s.policy.dead").await.unwrap());
    metric_becomes("jm_mq_nacks_total", &[("queue", "s.policy"), ("requeue", "false")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_of_its_delivery_its_attempt_and_its_deadline() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let told = Record::new();
    let tell = told.clone();
    let router = recording(&runs, move |cx| {
        let left = cx.remaining().expect("handler_timeout is a limit");
        tell.add((cx.queue().to_owned(), cx.envelope().routing_key().to_owned(), cx.attempt(), left));
        async move { if cx.attempt() == 1 { Err("once".into()) } else { Ok(()) } }
    });
    let options = ConsumerOptions { handler_timeout: Duration::from_secs(40), ..one_worker() };
    let _running = bench.consume("s.told", options, router).await;
    bench.send("s.told", "task", "1", "{}").await;
    let told = told.reaches(2).await;
    for (n, (queue, key, attempt, left)) in (1..).zip(told) {
        assert_eq!((queue.as_str(), key.as_str(), attempt), ("s.told", "s.told", n));
        // Each run has all of its time.
        assert!(left <= Duration::from_secs(40) && left > Duration::from_secs(30), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_may_ask_for_its_own_delay() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let failures = FailFirst::new(1);
    let router = recording(&runs, move |_| {
        let fails = failures.fails();
        async move { if fails { Err(HandlerError::retry_after("429", Duration::from_millis(400))) } else { Ok(()) } }
    });
    let _running = bench.consume("s.after", one_worker(), router).await;
    bench.send("s.after", "task", "1", "{}").await;
    runs.reaches(1).await;
    let first = std::time::Instant::now();
    runs.reaches(2).await;
    assert!(first.elapsed() >= Duration::from_millis(390), "{:?}", first.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_takes_first_deliveries_in_order_and_its_acks_leave_nothing_behind() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { prefetch_per_worker: 50, ..one_worker() };
    let _running = bench.consume("s.order", options, recording(&runs, |_| async { Ok(()) })).await;
    let properties =
        |n: usize| BasicProperties::default().with_type("task".into()).with_message_id(n.to_string().into());
    bench.vhost.publish_many("s.order", (0..2000).map(|n| (properties(n), "{}"))).await.unwrap();
    let ids: Vec<usize> = runs.reaches(2000).await.into_iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert_eq!(ids, (0..2000).collect::<Vec<_>>());
    bench.settled("s.order").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_workers_ack_leaves_at_once_and_a_slow_sibling_delays_nobody() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let gate = Gate::closed();
    let router = recording(&runs, {
        let gate = gate.clone();
        move |cx| {
            let gate = gate.clone();
            async move {
                if cx.message_id() == Some("slow") {
                    gate.passed().await;
                }
                Ok(())
            }
        }
    });
    let options = ConsumerOptions { concurrency: 2, prefetch_per_worker: 1, ..quick() };
    let _running = bench.consume("s.idle", options, router).await;
    bench.send("s.idle", "task", "slow", "{}").await;
    runs.reaches(1).await;
    bench.send("s.idle", "task", "quick", "{}").await;
    bench.vhost.wait_for_counts("s.idle", LIMIT, |counts| counts.ready == 0 && counts.unacked == 1).await.unwrap();
    assert_eq!(runs.len(), 2);
    gate.open();
    bench.settled("s.idle").await;
}
