//! Messages that the broker cannot take: it closes the channel or the whole connection, each time.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use jm_mq_core::{AMQPValue, Context, FieldTable, HandlerError, Message, Outgoing, PublishError, Router, Topology};
use jm_testkit::{QueueCounts, RabbitNode};
use lapin::BasicProperties;

use crate::support::{Bench, LIMIT, quick, text_header};

/// Every broker fails to read its header: the client library and RabbitMQ differ over this type.
fn poison() -> Outgoing {
    Outgoing::to_queue("nowhere", Message::new("t", "b").header("unreadable", AMQPValue::ShortString("text".into())))
}

fn task(id: &str) -> BasicProperties {
    BasicProperties::default().with_type("task".into()).with_message_id(id.into())
}

/// Answers what begins with `bad` with a message that the broker does not take.
fn answering(exchange: &'static str, bad: fn() -> Outgoing) -> Router {
    Router::new().on_type("task", move |_: serde_json::Value, cx: Context| async move {
        let id = cx.message_id().unwrap_or_default();
        let event = || Outgoing::new(exchange, exchange, Message::new("done", "yes").message_id(id));
        Ok::<_, HandlerError>(if id.starts_with("bad") { bad() } else { event() })
    })
}

/// Four bad ones among a hundred honest ones. `nack_requeue` is on: they would circle for ever.
async fn bad_answers_are_dead_lettered(bench: &Bench, queue: &str, exchange: &'static str, bad: fn() -> Outgoing) {
    bench.publisher.declare(&Topology::work_queue(exchange)).await.unwrap();
    let _running = bench.consume(queue, quick(), answering(exchange, bad)).await;
    let begun = Instant::now();
    bench.vhost.publish_many(queue, (0..4).map(|n| (task(&format!("bad {n}")), "{}"))).await.unwrap();
    bench.vhost.publish_many(queue, (0..100).map(|n| (task(&n.to_string()), "{}"))).await.unwrap();
    let only_bad_ones = |counts: &QueueCounts| counts.ready + counts.unacked <= 4;
    bench.vhost.wait_for_counts(queue, LIMIT, only_bad_ones).await.unwrap();
    let honest = begun.elapsed();
    let dead = bench.dead(queue, 4).await;
    bench.settled(queue).await;
    assert!(honest < Duration::from_secs(5), "{honest:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for letter in &dead {
        assert!(letter.properties.message_id().as_ref().unwrap().as_str().starts_with("bad"));
        assert_eq!(text_header(letter, "jm-error-kind"), "permanent");
        let reason = text_header(letter, "x-exception-message");
        assert!(reason.starts_with("the handler succeeded, but its answer was not published: "), "{reason}");
    }
    let events = bench.vhost.take_all(exchange).await.unwrap();
    let ids: HashSet<String> =
        events.iter().map(|event| event.properties.message_id().clone().unwrap().to_string()).collect();
    // One that was under way when the connection was closed may come twice.
    assert_eq!(ids.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_closes_the_connection_dead_letters_its_task_and_holds_up_no_other() {
    let bench = Bench::shared().await;
    bad_answers_are_dead_lettered(&bench, "x.closes", "x.closes.events", poison).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_above_the_brokers_limits_dead_letters_its_task_and_holds_up_no_other() {
    let node = RabbitNode::builder()
        .config_line("frame_max = 8192")
        .config_line("max_message_size = 65536")
        .start()
        .await
        .unwrap();
    let bench = Bench::on(&node).await;
    let headers = || {
        let large = AMQPValue::LongString("h".repeat(9000).into());
        Outgoing::to_queue("nowhere", Message::new("t", "b").header("large", large))
    };
    bad_answers_are_dead_lettered(&bench, "x.frame", "x.frame.events", headers).await;
    let body = || Outgoing::to_queue("nowhere", Message::new("t", vec![b'x'; 100_000]));
    bad_answers_are_dead_lettered(&bench, "x.body", "x.body.events", body).await;

    // A message whose own headers leave no room for the reason.
    let mut headers = FieldTable::default();
    headers.insert("large".into(), AMQPValue::LongString("h".repeat(7900).into()));
    let unknown = BasicProperties::default().with_type("other".into()).with_headers(headers);
    let _running = bench.consume("x.room", quick(), answering("x.body.events", body)).await;
    bench.vhost.publish("x.room", unknown, b"body").await.unwrap();
    let dead = bench.dead("x.room", 1).await.remove(0);
    assert_eq!((text_header(&dead, "jm-error-kind"), dead.data), ("unknown_type".into(), b"body".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_closes_the_connection_is_invalid_and_its_neighbours_are_confirmed() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("x.honest").await.unwrap();
    let honest = |n: usize| Outgoing::to_queue("x.honest", Message::new("t", "b").message_id(&n.to_string()));
    let invalid = |error: &PublishError| matches!(error, PublishError::Invalid { reason, .. } if reason.contains("whenever this message is published"));
    let publishes = (0..50).map(|n| {
        let (publisher, outgoing) = (bench.publisher.clone(), if n == 20 { poison() } else { honest(n) });
        tokio::spawn(async move { publisher.publish(&outgoing).await })
    });
    for (n, publish) in publishes.collect::<Vec<_>>().into_iter().enumerate() {
        match publish.await.unwrap() {
            Ok(()) => assert_ne!(n, 20),
            Err(error) => assert!(n == 20 && invalid(&error), "{n}: {error}"),
        }
    }
    let mut batch: Vec<Outgoing> = (50..100).map(honest).collect();
    batch[7] = poison();
    for (n, result) in bench.publisher.publish_all(&batch).await.into_iter().enumerate() {
        match result {
            Ok(()) => assert_ne!(n, 7),
            Err(error) => assert!(n == 7 && invalid(&error), "{n}: {error}"),
        }
    }
    let arrived = bench.vhost.take_all("x.honest").await.unwrap();
    let ids: HashSet<String> =
        arrived.iter().map(|message| message.properties.message_id().clone().unwrap().to_string()).collect();
    assert_eq!(ids.len(), 98, "each at least once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_own_properties_the_broker_does_not_take_again_is_dead_lettered_without_them() {
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let _running = bench.consume("x.own", quick(), answering("x.own.events", poison)).await;
    // No client of AMQP 0-9-1 may send this `reply_to`; by another protocol it arrives.
    let publish = format!(
        "Exchange = {{resource, <<\"{}\">>, exchange, <<>>}},
         Properties = [{{type, <<\"other\">>}}, {{reply_to, <<\"amq.rabbitmq.reply-to\">>}}],
         case erlang:function_exported(rabbit_basic, publish, 4) of
             true ->
                 rabbit_basic:publish(Exchange, <<\"x.own\">>, Properties, <<\"body\">>);
             false ->
                 Basic = rabbit_basic:message(Exchange, <<\"x.own\">>, Properties, <<\"body\">>),
                 {{ok, Message}} = mc_amqpl:message(Exchange, <<\"x.own\">>, element(4, Basic)),
                 rabbit_queue_type:publish_at_most_once(Exchange, Message)
         end",
        bench.vhost.name
    );
    node.eval(&publish).await.unwrap();
    let dead = bench.dead("x.own", 1).await.remove(0);
    assert_eq!((text_header(&dead, "jm-error-kind"), dead.data), ("unknown_type".into(), b"body".to_vec()));
    assert_eq!(dead.properties.reply_to(), &None);
    assert_eq!(dead.properties.kind().as_ref().unwrap().as_str(), "other");
    bench.settled("x.own").await;
}
