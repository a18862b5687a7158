//! What differs between RabbitMQ 3 and 4, and that the promises are kept on both. `docs/broker-versions.md` tells it.

use jm_mq_core::{Consumer, Declare, HandlerError, Message, Outgoing, PublishError, Topology};
use jm_testkit::{QueueCounts, RabbitNode};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicNackOptions, BasicRejectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldArray, FieldTable},
};

use crate::support::{Bench, LIMIT, Record, header, one_worker, recording, text_header};

/// The first two numbers of the broker's version.
async fn version() -> (u32, u32) {
    let version = RabbitNode::shared().await.unwrap().version().await.unwrap();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

/// Requeues the queue's message so many times, as long as there is one, and returns how often that was.
async fn requeue(bench: &Bench, queue: &str, times: usize, reject: bool) -> usize {
    let channel = bench.vhost.channel().await.unwrap();
    for requeued in 0..times {
        let Some(message) = channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap() else {
            return requeued;
        };
        if reject {
            message.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        } else {
            message.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
        }
        // A quorum queue has it back a little later.
        let settled = |counts: &QueueCounts| counts.unacked == 0;
        bench.vhost.wait_for_counts(queue, LIMIT, settled).await.unwrap();
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_drops_after_twenty_one_rejects_from_rabbitmq_4_on_and_after_so_many_nacks_until_4_2() {
    let bench = Bench::shared().await;
    for (queue, reject) in [("v.nacked", false), ("v.rejected", true)] {
        bench.vhost.declare_queue_with(queue, true, quorum()).await.unwrap();
        bench.send(queue, "task", "1", "{}").await;
        let requeued = requeue(&bench, queue, 25, reject).await;
        let left = bench.vhost.queue_counts(queue).await.unwrap().ready;
        let version = version().await;
        let counts = version >= (4, 0) && (reject || version < (4, 3));
        assert_eq!((requeued, left), if counts { (21, 0) } else { (25, 1) }, "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_its_consumers_is_our_dead_letter_before_the_brokers_limit_drops_it() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue_with("v.poison", true, quorum()).await.unwrap();
    bench.vhost.declare_queue("v.poison.dead").await.unwrap();
    let runs = Record::new();
    let consumer = || {
        let topology = Topology { queue: "v.poison".into(), declare: Declare::Check, ..Topology::default() };
        let router = recording(&runs, |_| async { std::future::pending::<Result<(), HandlerError>>().await });
        Consumer::new(&bench.broker, &bench.publisher, topology, one_worker(), router).unwrap()
    };
    bench.send("v.poison", "task", "1", "{}").await;
    let limit = usize::try_from(one_worker().max_deliveries).unwrap();
    for crash in 1..=limit + 1 {
        let running = consumer().start();
        runs.reaches(crash).await;
        drop(running);
        // A quorum queue has it back a little later.
        bench.ready("v.poison", 1).await;
    }
    let _running = consumer().start();
    let dead = bench.dead("v.poison", 1).await;
    assert_eq!(text_header(&dead[0], "jm-error-kind"), "poison");
    assert_eq!(runs.len(), limit + 1, "delivered with every count up to the limit");
    bench.settled("v.poison").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_17_mib_is_an_error_at_once_on_rabbitmq_4_and_costs_the_others_nothing() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("v.large").await.unwrap();
    let of = |mib: usize| Outgoing::to_queue("v.large", Message::new("t", vec![b'x'; mib * 1024 * 1024]));
    let large = bench.publisher.publish(&of(17)).await;
    if version().await < (4, 0) {
        large.unwrap();
    } else {
        let error = large.unwrap_err();
        assert!(matches!(&error, PublishError::Invalid { reason, .. } if reason.contains("16777216")), "{error}");
    }
    bench.publisher.publish(&of(16)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_that_rabbitmq_4_takes_can_be_dead_lettered_with_its_reasons() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let running = bench.consume("v.largest", one_worker(), recording(&runs, |_| async { Ok(()) })).await;
    let mut headers = FieldTable::default();
    headers.insert("heavy".into(), AMQPValue::LongString("h".repeat(100_000).into()));
    let properties = BasicProperties::default().with_type("task".into()).with_headers(headers);
    bench.vhost.publish("v.largest", properties, &vec![b'{'; 16 * 1024 * 1024]).await.unwrap();
    let dead = bench.dead("v.largest", 1).await;
    assert_eq!(
        (text_header(&dead[0], "jm-error-kind").as_str(), dead[0].data.len()),
        ("undecodable", 16 * 1024 * 1024)
    );
    bench.settled("v.largest").await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producers_own_x_death_counts_on_rabbitmq_3_only_and_decides_nothing_here() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("v.buried").await.unwrap();
    let definition = r#"{"dead-letter-exchange": "", "dead-letter-routing-key": "v.buried"}"#;
    bench.vhost.set_policy("death", "^v\\.death$", definition).await.unwrap();
    bench.vhost.declare_queue("v.death").await.unwrap();
    let mut entry = FieldTable::default();
    entry.insert("queue".into(), AMQPValue::LongString("elsewhere".into()));
    entry.insert("reason".into(), AMQPValue::LongString("rejected".into()));
    entry.insert("count".into(), AMQPValue::LongLongInt(99));
    entry.insert("exchange".into(), AMQPValue::LongString("".into()));
    entry.insert("routing-keys".into(), AMQPValue::FieldArray(FieldArray::default()));
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(entry)].into()));
    let properties = BasicProperties::default().with_type("task".into()).with_headers(headers);
    bench.vhost.publish("v.death", properties, b"{}").await.unwrap();

    let runs = Record::new();
    let options = jm_mq_core::ConsumerOptions { dead_letter: jm_mq_core::DeadLetter::Broker, ..one_worker() };
    let router = recording(&runs, |_| async { Err::<(), _>(HandlerError::permanent("no")) });
    let _running = bench.consume("v.death", options, router).await;
    bench.ready("v.buried", 1).await;
    assert_eq!(runs.len(), 1, "a count of 99 in it kept nothing from its run");
    let buried = bench.vhost.take_all("v.buried").await.unwrap();
    let Some(AMQPValue::FieldArray(deaths)) = header(&buried[0], "x-death") else { panic!("{buried:?}") };
    let entries = deaths.as_slice().len();
    match version().await {
        (3, _) => assert_eq!(entries, 2, "the broker's own before the producer's: {deaths:?}"),
        _ => assert_eq!(entries, 1, "the broker's own alone: {deaths:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passive_declare_needs_no_permission_until_4_2_and_any_one_on_the_queue_from_4_3_on() {
    let bench = Bench::shared().await;
    let vhost = &bench.vhost;
    vhost.declare_queue("v.looked-at").await.unwrap();
    let user = format!("{}-looks", vhost.name);
    vhost.add_user(&user, "secret").await.unwrap();
    let free = version().await < (4, 3);
    let own = "^v\\.looked-at$";
    for (rights, allowed) in [
        (["^$", "^$", "^$"], free),
        (["^other$", "^other$", "^other$"], free),
        ([own, "^$", "^$"], true),
        (["^$", own, "^$"], true),
        (["^$", "^$", own], true),
    ] {
        let [configure, write, read] = rights;
        vhost.set_permissions(&user, configure, write, read).await.unwrap();
        let uri = format!("amqp://{user}:secret@127.0.0.1:{}/{}", vhost.port, vhost.name);
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let looked = channel.queue_declare("v.looked-at".into(), passive, FieldTable::default()).await;
        match looked {
            Ok(_) => assert!(allowed, "{rights:?}"),
            Err(error) => assert!(!allowed && error.to_string().contains("ACCESS_REFUSED"), "{rights:?}: {error}"),
        }
    }
}
