//! The wire contract, seen from the outside: what the Go services send and expect.

use jm_mq_core::{
    Answers, Consumer, ConsumerState, Context, Declare, ExchangeKind, HandlerError, Message, Outgoing, Payload, Router,
    Topology, TraceContext,
};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde::{Deserialize, Serialize};

use crate::support::{Bench, Record, header, one_worker, recording, taking_anything, within};

#[derive(Serialize, Deserialize)]
struct Summarize {
    text: String,
}

impl Payload for Summarize {
    const TYPE: &'static str = "llm.summarize";
}

/// The specification's `declareResources`, with the arguments of the Go services.
async fn declare_as_the_go_services_do(channel: &lapin::Channel, name: &str) {
    let exchange = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let kind = lapin::ExchangeKind::Direct;
    channel.exchange_declare(name.into(), kind, exchange, FieldTable::default()).await.unwrap();
    let queue = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), queue, FieldTable::default()).await.unwrap();
    let options = QueueBindOptions::default();
    channel.queue_bind(name.into(), name.into(), name.into(), options, FieldTable::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_as_the_go_services_send_it_is_handled_and_their_declarations_are_accepted() {
    let bench = Bench::shared().await;
    let go = bench.vhost.channel().await.unwrap();
    declare_as_the_go_services_do(&go, "jm.llm").await;

    let texts = Record::new();
    let router = Router::new().on({
        let texts = texts.clone();
        move |task: Summarize, cx: Context| {
            texts.add((task.text, cx.message_id().map(str::to_owned), cx.envelope().timestamp()));
            async { Ok::<_, HandlerError>(()) }
        }
    });
    let _running = bench.consume("jm.llm", one_worker(), router).await;
    // Both sides declare again whenever they reconnect.
    declare_as_the_go_services_do(&go, "jm.llm").await;

    let properties =
        BasicProperties::default().with_content_type("text/plain".into()).with_type(Summarize::TYPE.into());
    let body = r#"{"text": "会议纪要", "field_of_next_year": [1]}"#.as_bytes();
    go.basic_publish("jm.llm".into(), "jm.llm".into(), BasicPublishOptions::default(), body, properties).await.unwrap();
    assert_eq!(texts.reaches(1).await, [("会议纪要".to_owned(), None, None)]);
    bench.settled("jm.llm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_publish_has_the_three_properties_of_the_go_services_and_ours() {
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("w.out")).await.unwrap();
    let message = Message::of(&Summarize { text: "hi".into() })
        .unwrap()
        .correlation_id("record-7")
        .trace(TraceContext::root())
        .header("tenant", AMQPValue::LongInt(3));
    bench.publisher.publish(&Outgoing::new("w.out", "w.out", message)).await.unwrap();
    let sent = bench.vhost.take_all("w.out").await.unwrap().remove(0);
    let name = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(sent.data, br#"{"text":"hi"}"#);
    assert_eq!(name(sent.properties.content_type()), Some("text/plain".into()));
    assert_eq!(name(sent.properties.kind()), Some("llm.summarize".into()));
    assert_eq!(name(sent.properties.app_id()), Some("test".into()));
    assert_eq!(name(sent.properties.correlation_id()), Some("record-7".into()));
    assert_eq!(name(sent.properties.message_id()).unwrap().len(), 36);
    assert_eq!(*sent.properties.delivery_mode(), Some(2));
    assert!(sent.properties.timestamp().is_some());
    assert!(header(&sent, "traceparent").is_some());
    assert_eq!(header(&sent, "tenant"), Some(&AMQPValue::LongInt(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_to_who_asked_and_a_requester_who_is_gone_fails_nothing() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("w.asker").await.unwrap();
    let runs = Record::new();
    let router = recording(&runs, |cx| async move { Ok(Answers::none().and_reply(&cx, Message::new("done", "42"))) });
    let _running = bench.consume("w.asked", one_worker(), router).await;
    for queue in ["w.asker", "w.nobody"] {
        let properties = BasicProperties::default()
            .with_type("task".into())
            .with_message_id("q-1".into())
            .with_reply_to(queue.into());
        bench.vhost.publish("w.asked", properties, b"{}").await.unwrap();
    }
    bench.settled("w.asked").await;
    let answers = bench.vhost.take_all("w.asker").await.unwrap();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].properties.correlation_id().as_ref().unwrap().as_str(), "q-1");
    assert_eq!(runs.len(), 2);
    assert!(bench.vhost.take_all("w.asked.dead").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_exchange_routes_as_it_should() {
    let bench = Bench::shared().await;
    let headers = [("format".to_owned(), "pdf".to_owned()), ("x-match".to_owned(), "all".to_owned())];
    let topologies = [
        Topology::new("w.direct", "w.x.direct", ExchangeKind::Direct, "key"),
        Topology::new("w.fanout", "w.x.fanout", ExchangeKind::Fanout, ""),
        Topology::new("w.topic", "w.x.topic", ExchangeKind::Topic, "note.*"),
        Topology {
            binding_arguments: headers.into(),
            ..Topology::new("w.headers", "w.x.headers", ExchangeKind::Headers, "")
        },
    ];
    for topology in &topologies {
        bench.publisher.declare(topology).await.unwrap();
        // Harmless when it exists like that.
        bench.publisher.declare(topology).await.unwrap();
    }
    let message = |id: &str| Message::new("t", "b").message_id(id);
    let routed = [
        Outgoing::new("w.x.direct", "key", message("1")),
        Outgoing::new("w.x.fanout", "whatever", message("2")),
        Outgoing::new("w.x.topic", "note.created", message("3")),
        Outgoing::new("w.x.headers", "", message("4").header("format", AMQPValue::LongString("pdf".into()))),
    ];
    let unrouted = [
        Outgoing::new("w.x.direct", "other", message("5")),
        Outgoing::new("w.x.topic", "note.created.twice", message("6")),
        Outgoing::new("w.x.headers", "", message("7").header("format", AMQPValue::LongString("png".into()))),
    ];
    for (outgoing, topology) in routed.iter().zip(&topologies) {
        bench.publisher.publish(outgoing).await.unwrap();
        assert_eq!(bench.vhost.take_all(&topology.queue).await.unwrap().len(), 1, "{topology:?}");
    }
    for outgoing in &unrouted {
        let error = bench.publisher.publish(outgoing).await.unwrap_err();
        assert!(matches!(error, jm_mq_core::PublishError::Unroutable { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_only_declares_the_exchange_and_no_queue() {
    let bench = Bench::shared().await;
    let topology = Topology::publish_only("w.only", ExchangeKind::Fanout);
    bench.publisher.declare(&topology).await.unwrap();
    let channel = bench.vhost.channel().await.unwrap();
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    channel
        .exchange_declare("w.only".into(), lapin::ExchangeKind::Fanout, passive, FieldTable::default())
        .await
        .unwrap();
    let error = Consumer::new(&bench.broker, &bench.publisher, topology, one_worker(), Router::new()).unwrap_err();
    assert!(error.to_string().starts_with("option `queue` is empty"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broadcast_consumer_sees_every_event_by_a_queue_that_goes_with_it() {
    let bench = Bench::shared().await;
    let records = [Record::new(), Record::new()];
    let mut running = Vec::new();
    for ids in &records {
        let topology = Topology::broadcast("w.news", ExchangeKind::Fanout, "");
        let router = taking_anything(ids);
        let consumer = Consumer::new(&bench.broker, &bench.publisher, topology, one_worker(), router).unwrap().start();
        within("ready", consumer.ready()).await;
        running.push(consumer);
    }
    let news = Outgoing::new("w.news", "", Message::new("cache.flushed", "{}").message_id("n-1"));
    bench.publisher.publish(&news).await.unwrap();
    for ids in &records {
        assert_eq!(ids.reaches(1).await, ["n-1"]);
    }
    for consumer in running {
        consumer.shutdown().await;
    }
    let error = bench.publisher.publish(&news).await.unwrap_err();
    assert!(matches!(error, jm_mq_core::PublishError::Unroutable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_the_operators_is_used_as_it_is_when_we_only_check() {
    let bench = Bench::shared().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1000));
    bench.vhost.declare_queue_with("w.own", true, arguments).await.unwrap();
    bench.vhost.declare_queue("w.own.dead").await.unwrap();
    let runs = Record::new();
    let topology = Topology { queue: "w.own".into(), declare: Declare::Check, ..Topology::default() };
    let router = recording(&runs, |_| async { Ok(()) });
    let consumer = Consumer::new(&bench.broker, &bench.publisher, topology, one_worker(), router).unwrap().start();
    within("ready", consumer.ready()).await;
    bench.send("w.own", "task", "1", "{}").await;
    runs.reaches(1).await;
    bench.settled("w.own").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_declares_where_its_answers_go_and_again_when_that_was_deleted() {
    let bench = Bench::shared().await;
    let answer = async |_: serde_json::Value, _: Context| {
        Ok::<_, HandlerError>(Outgoing::new("w.answers", "w.answers", Message::new("done", "{}")))
    };
    let router = Router::new().on_type("task", answer);
    let consumer = bench.consumer("w.asks", one_worker(), router);
    let consumer = consumer.answering_to(Topology::work_queue("w.answers")).unwrap().start();
    within("ready", consumer.ready()).await;
    bench.send("w.asks", "task", "1", "{}").await;
    bench.ready("w.answers", 1).await;

    bench.vhost.delete_queue("w.answers").await.unwrap();
    bench.vhost.delete_exchange("w.answers").await.unwrap();
    let mut states = consumer.states();
    bench.vhost.close_connections("by test").await.unwrap();
    within("not ready", states.wait_for(|state| !matches!(state, ConsumerState::Ready))).await.unwrap();
    within("ready", consumer.ready()).await;
    bench.send("w.asks", "task", "2", "{}").await;
    bench.ready("w.answers", 1).await;
}
