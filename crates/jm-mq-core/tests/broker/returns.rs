//! Returns that a worker makes itself are no crashes, and crashes are counted all the same: on quorum queues, by one process
//! or several.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jm_mq_core::{
    Broker, Consumer, ConsumerOptions, Context, Declare, ExchangeKind, HandlerError, Message, Outgoing, Publisher,
    PublisherOptions, Router, RunningConsumer, Topology,
};
use jm_testkit::{QueueCounts, RabbitNode};
use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldArray, FieldTable},
};

use crate::support::{
    Bench, Gate, LIMIT, Record, broker_options, held, metric_becomes, metric_reaches, one_worker, recording,
    text_header, within,
};

use Step::{Crash, Fail};

/// What a message's next run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Fails, so that the message is returned.
    Fail,
    /// Runs until its process is gone.
    Crash,
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

async fn declare_quorum(bench: &Bench, queue: &str) -> Topology {
    bench.vhost.declare_queue_with(queue, true, quorum()).await.unwrap();
    bench.vhost.declare_queue(&format!("{queue}.dead")).await.unwrap();
    Topology { queue: queue.into(), declare: Declare::Check, ..Topology::default() }
}

/// No retries: every failed run is a return.
fn returning(max_deliveries: u64) -> ConsumerOptions {
    ConsumerOptions { max_retry_attempts: 0, max_deliveries, ..one_worker() }
}

/// As another process would: with connections of its own, and no memory of what others did.
async fn replica(bench: &Bench, topology: &Topology, options: &ConsumerOptions, router: Router) -> RunningConsumer {
    let broker = Broker::new(broker_options(&bench.vhost, bench.vhost.port)).unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let running = Consumer::new(&broker, &publisher, topology.clone(), options.clone(), router).unwrap().start();
    within("ready", running.ready()).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_dependency_poisons_nothing_however_often_its_messages_are_returned() {
    let bench = Bench::shared().await;
    let topology = declare_quorum(&bench, "r.outage").await;
    let runs = Record::new();
    let up = Arc::new(AtomicBool::new(false));
    let router = || {
        let up = Arc::clone(&up);
        recording(&runs, move |_| {
            let result = if up.load(Ordering::SeqCst) { Ok(()) } else { Err("the database is away".into()) };
            async move { result }
        })
    };
    let options = ConsumerOptions { concurrency: 2, max_retry_attempts: 1, ..returning(3) };
    let _replicas =
        [replica(&bench, &topology, &options, router()).await, replica(&bench, &topology, &options, router()).await];
    for n in 0..5 {
        bench.send("r.outage", "task", &n.to_string(), "{}").await;
    }
    // 30 of each message, if they take turns, and twice what RabbitMQ 4 allows if they do not.
    let requeued = [("queue", "r.outage"), ("type", "task"), ("outcome", "requeue")];
    metric_reaches("jm_mq_deliveries_total", &requeued, 150.0).await;
    up.store(true, Ordering::SeqCst);
    bench.settled("r.outage").await;
    metric_becomes("jm_mq_deliveries_total", &[requeued[0], requeued[1], ("outcome", "ack")], 5.0).await;
    assert!(bench.vhost.take_all("r.outage.dead").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_counted_across_processes_and_returns_between_them_are_not() {
    let bench = Bench::shared().await;
    let topology = declare_quorum(&bench, "r.mixed").await;
    let (runs, holds) = (Record::new(), Record::new());
    let steps = [Fail, Fail, Crash, Fail, Crash, Crash, Fail, Fail, Fail, Crash];
    let script = Arc::new(Mutex::new(VecDeque::from(steps)));
    let router = || {
        let (script, holds) = (Arc::clone(&script), holds.clone());
        recording(&runs, move |_| {
            let step = script.lock().unwrap().pop_front();
            let holds = holds.clone();
            async move {
                match step {
                    Some(Fail) => Err(HandlerError::retryable("the database is away")),
                    Some(Crash) => {
                        holds.add(());
                        std::future::pending().await
                    }
                    None => Ok(()),
                }
            }
        })
    };
    bench.send("r.mixed", "task", "1", "{}").await;
    for crash in 1..=4 {
        let running = replica(&bench, &topology, &returning(3), router()).await;
        holds.reaches(crash).await;
        let holds_it = |counts: &QueueCounts| (counts.ready, counts.unacked) == (0, 1);
        bench.vhost.wait_for_counts("r.mixed", LIMIT, holds_it).await.unwrap();
        // Without a drain, as a killed process leaves it.
        drop(running);
        // A quorum queue has it back a little later.
        bench.ready("r.mixed", 1).await;
    }
    let _last = replica(&bench, &topology, &returning(3), router()).await;
    let dead = bench.dead("r.mixed", 1).await;
    assert_eq!(text_header(&dead[0], "jm-error-kind"), "poison");
    assert_eq!(runs.len(), steps.len(), "the fourth crash is one too many, and none before it");
    let reason = text_header(&dead[0], "x-exception-message");
    assert!(reason.starts_with("4 consumers were lost while they held it"), "{reason}");
    // Only a copy can say so; where the broker tells returns from crashes, there is none.
    let counts_nacks = RabbitNode::shared().await.unwrap().version().await.unwrap().as_str() < "4.3";
    assert_eq!(reason.contains("the database is away"), counts_nacks, "{reason}");
    bench.settled("r.mixed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_and_the_time_budget_are_no_crashes() {
    let bench = Bench::shared().await;
    let topology = declare_quorum(&bench, "r.drained").await;
    let (runs, gate) = (Record::new(), Gate::closed());
    let drained = ConsumerOptions { drain_timeout: Duration::from_millis(50), ..returning(1) };
    for n in 0..5 {
        bench.send("r.drained", "task", &n.to_string(), "{}").await;
    }
    for cycle in 1..=4 {
        let running = replica(&bench, &topology, &drained, held(&runs, &gate)).await;
        runs.reaches(cycle).await;
        let holds_all = |counts: &QueueCounts| counts.unacked == 5;
        bench.vhost.wait_for_counts("r.drained", LIMIT, holds_all).await.unwrap();
        let report = within("drained", running.shutdown()).await;
        assert_eq!((report.handed_back, report.cut_off), (4, 1));
        bench.ready("r.drained", 5).await;
    }
    // The running one and those behind it go back before a second is over, each time.
    let hasty = ConsumerOptions { consumer_timeout: Duration::from_secs(1), ..returning(1) };
    let running = replica(&bench, &topology, &hasty, held(&runs, &gate)).await;
    let returned = [("queue", "r.drained"), ("requeue", "true")];
    metric_reaches("jm_mq_nacks_total", &returned, 20.0 + 15.0).await;
    gate.open();
    bench.settled("r.drained").await;
    assert!(bench.vhost.take_all("r.drained.dead").await.unwrap().is_empty());
    within("drained", running.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_published_is_no_crash_and_is_kept_for_the_messages_return() {
    let bench = Bench::shared().await;
    let topology = declare_quorum(&bench, "r.unanswered").await;
    let runs = Record::new();
    let answer = |_| async { Ok(Outgoing::new("r.results", "key", Message::new("done", "yes"))) };
    let router = recording(&runs, answer);
    let _running = replica(&bench, &topology, &returning(1), router).await;
    bench.send("r.unanswered", "task", "1", "{}").await;
    let requeued = [("queue", "r.unanswered"), ("type", "task"), ("outcome", "requeue")];
    metric_reaches("jm_mq_deliveries_total", &requeued, 6.0).await;
    bench.publisher.declare(&Topology::new("r.results", "r.results", ExchangeKind::Direct, "key")).await.unwrap();
    bench.settled("r.unanswered").await;
    assert_eq!(runs.len(), 1);
    assert_eq!(bench.vhost.take_all("r.results").await.unwrap().len(), 1);
    assert!(bench.vhost.take_all("r.unanswered.dead").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_a_producer_copied_decide_nothing_on_any_queue() {
    let bench = Bench::shared().await;
    let topology = declare_quorum(&bench, "r.copied.quorum").await;
    let runs = Record::new();
    // The second run, of a redelivery, is the one that is done.
    let router = || {
        recording(&runs, |cx: Context| async move {
            if cx.envelope().redelivered() { Ok(()) } else { Err("the first time".into()) }
        })
    };
    let options = ConsumerOptions { max_retry_attempts: 0, ..one_worker() };
    let _quorum = replica(&bench, &topology, &options, router()).await;
    let _classic = bench.consume("r.copied.classic", options, router()).await;
    for queue in ["r.copied.quorum", "r.copied.classic"] {
        for count in ["x-delivery-count", "x-acquired-count", "jm-returned"] {
            let mut headers = FieldTable::default();
            headers.insert(count.into(), AMQPValue::LongLongInt(16));
            let properties = BasicProperties::default().with_type("task".into()).with_headers(headers);
            bench.vhost.publish(queue, properties, b"{}").await.unwrap();
        }
    }
    runs.reaches(12).await;
    for queue in ["r.copied.quorum", "r.copied.classic"] {
        bench.settled(queue).await;
        assert!(bench.vhost.take_all(&format!("{queue}.dead")).await.unwrap().is_empty(), "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_message_is_the_same_when_it_comes_back() {
    let bench = Bench::shared().await;
    let topology = declare_quorum(&bench, "r.same").await;
    bench.vhost.declare_exchange("r.topics", lapin::ExchangeKind::Topic).await.unwrap();
    bench.vhost.bind("r.same", "r.topics", "notes.#").await.unwrap();
    bench.vhost.declare_queue("r.elsewhere").await.unwrap();
    bench.vhost.bind("r.elsewhere", "r.topics", "r.elsewhere").await.unwrap();
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongLongInt(7));
    let elsewhere = AMQPValue::LongString("r.elsewhere".into());
    headers.insert("CC".into(), AMQPValue::FieldArray(FieldArray::from(vec![elsewhere])));
    let properties = BasicProperties::default()
        .with_type("task".into())
        .with_message_id("id-1".into())
        .with_correlation_id("record-1".into())
        .with_reply_to("r.answers".into())
        .with_content_type("text/plain".into())
        .with_timestamp(1_700_000_000)
        .with_expiration("600000".into())
        .with_user_id(bench.vhost.user.as_str().into())
        .with_delivery_mode(2)
        .with_priority(3)
        .with_headers(headers);
    let channel = bench.vhost.channel().await.unwrap();
    let options = BasicPublishOptions::default();
    channel.basic_publish("r.topics".into(), "notes.new".into(), options, b"{}", properties).await.unwrap();

    let seen = Record::new();
    let see = seen.clone();
    let router = Router::new().on_type("task", move |_: serde_json::Value, cx: Context| {
        see.add(cx.envelope().clone());
        let returned = cx.envelope().redelivered();
        async move { if returned { Ok(()) } else { Err::<(), HandlerError>("the first time".into()) } }
    });
    let _running = replica(&bench, &topology, &returning(1), router).await;
    let seen = seen.reaches(2).await;
    bench.settled("r.same").await;
    let of = |n: usize| {
        let envelope: &jm_mq_core::Envelope = &seen[n];
        let properties = envelope.properties();
        let names = [properties.kind(), properties.message_id(), properties.correlation_id(), properties.reply_to()];
        let others = [properties.content_type(), properties.expiration(), properties.app_id()];
        let numbers = (*properties.timestamp(), *properties.delivery_mode(), *properties.priority());
        // What the broker counts, and where the user is, who could be nobody but us, are not the producer's.
        let ours = ["x-delivery-count", "x-acquired-count", "jm-original-user-id"];
        let headers = properties.headers().iter().flat_map(FieldTable::inner);
        let headers: Vec<_> = headers.filter(|(name, _)| !ours.contains(&name.as_str())).collect();
        format!("{} {} {names:?} {others:?} {numbers:?} {headers:?}", envelope.exchange(), envelope.routing_key())
    };
    assert_eq!(of(0), of(1));
    assert_eq!(bench.vhost.take_all("r.elsewhere").await.unwrap().len(), 1, "no second one by its CC header");
}
