//! Confirmed publishing: what a publish comes to, and by when.

use std::time::{Duration, Instant};

use jm_mq_core::{Message, Outgoing, PublishError, Publisher, PublisherOptions, TimeoutCause, Topology};
use jm_testkit::{RabbitNode, TcpProxy};
use lapin::types::{AMQPValue, FieldTable};

use crate::support::{Bench, broker_options, metric, metric_becomes, within};

fn to(queue: &str, id: usize) -> Outgoing {
    Outgoing::to_queue(queue, Message::new("t", "body").message_id(&id.to_string()))
}

fn impatient(bench: &Bench) -> Publisher {
    let options = PublisherOptions { timeout: Duration::from_secs(1), ..PublisherOptions::default() };
    Publisher::new(&bench.broker, options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_message_is_an_error_that_names_exchange_and_key() {
    let bench = Bench::shared().await;
    let error = bench.publisher.publish(&to("p.nowhere", 1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "message for exchange `` with routing key `p.nowhere` reached no queue: 312 NO_ROUTE"
    );
    let missing = Outgoing::new("p.no-exchange", "k", Message::new("t", "b"));
    let error = bench.publisher.publish(&missing).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Unroutable { reason, .. } if reason.contains("no exchange 'p.no-exchange'")),
        "{error}"
    );
    // The broker closed that channel; the next publish has another.
    bench.vhost.declare_queue("p.nowhere").await.unwrap();
    bench.publisher.publish(&to("p.nowhere", 2)).await.unwrap();
    metric_becomes("jm_mq_publishes_total", &[("exchange", "p.no-exchange"), ("outcome", "unroutable")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_is_an_error() {
    let bench = Bench::shared().await;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(2));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    bench.vhost.declare_queue_with("p.full", true, full).await.unwrap();
    let results = bench.publisher.publish_all(&[to("p.full", 1), to("p.full", 2), to("p.full", 3)]).await;
    assert!(results[0].is_ok());
    let error = bench.publisher.publish(&to("p.full", 4)).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("routing key `p.full`"));
    let confirmed = results.iter().filter(|result| result.is_ok()).count() as u64;
    assert_eq!(bench.vhost.queue_counts("p.full").await.unwrap().ready, confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_at_all_is_an_error_that_risks_no_connection() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.valid").await.unwrap();
    let too_long = Outgoing::to_queue("q".repeat(256), Message::new("t", "b"));
    let defect = Outgoing::to_queue("p.valid", Message::new(&"t".repeat(256), "b"));
    let heavy = AMQPValue::LongString("h".repeat(200_000).into());
    let headers = Outgoing::to_queue("p.valid", Message::new("t", "b").header("heavy", heavy));
    for (outgoing, word) in [(too_long, "routing key of 256 bytes"), (defect, "type: "), (headers, "headers of 2000")] {
        let error = bench.publisher.publish(&outgoing).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    bench.publisher.publish(&to("p.valid", 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_for_each_message_what_became_of_it() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.batch").await.unwrap();
    // Every seventh is unroutable, and returns come attached to the wrong confirms.
    let batch: Vec<Outgoing> = (0..3000).map(|n| to(if n % 7 == 0 { "p.gone" } else { "p.batch" }, n)).collect();
    let results = bench.publisher.publish_all(&batch).await;
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(()) => assert_ne!(n % 7, 0),
            Err(error) => assert!(n % 7 == 0 && matches!(error, PublishError::Unroutable { .. }), "{n}: {error}"),
        }
    }
    let arrived = bench.vhost.take_all("p.batch").await.unwrap();
    let ids: Vec<usize> =
        arrived.iter().map(|d| d.properties.message_id().as_ref().unwrap().as_str().parse().unwrap()).collect();
    assert_eq!(ids, (0..3000).filter(|n| n % 7 != 0).collect::<Vec<_>>(), "in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_closes_the_channel_does_not_take_its_batch_along() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.mixed").await.unwrap();
    let mut batch: Vec<Outgoing> = (0..20).map(|n| to("p.mixed", n)).collect();
    batch[9] = Outgoing::new("p.missing", "k", Message::new("t", "b"));
    let results = bench.publisher.publish_all(&batch).await;
    let failed: Vec<usize> = (0..20).filter(|&n| results[n].is_err()).collect();
    assert_eq!(failed, [9]);
    let ids = bench.vhost.take_all("p.mixed").await.unwrap();
    let mut ids: Vec<String> = ids.iter().map(|d| d.properties.message_id().clone().unwrap().to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 19, "each at least once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_replaced_and_the_message_sent_again_with_its_id() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.again").await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    let bench = Bench::at(bench.vhost, proxy.port());
    bench.publisher.publish(&to("p.again", 0)).await.unwrap();
    for n in 1..=20 {
        match n % 3 {
            0 => proxy.cut(),
            1 => proxy.reset(),
            // In the middle of this very publish.
            _ => proxy.reset_after(40),
        }
        bench.publisher.publish(&to("p.again", n)).await.unwrap();
    }
    let arrived = bench.vhost.take_all("p.again").await.unwrap();
    let mut ids: Vec<usize> =
        arrived.iter().map(|d| d.properties.message_id().as_ref().unwrap().as_str().parse().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids, (0..=20).collect::<Vec<_>>(), "none lost, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_survives_cut_connections() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.cut").await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    let bench = Bench::at(bench.vhost, proxy.port());
    bench.publisher.publish(&to("p.cut", 9999)).await.unwrap();
    proxy.reset_after(60_000);
    let batch: Vec<Outgoing> = (0..2000).map(|n| to("p.cut", n)).collect();
    let results = within("the batch", bench.publisher.publish_all(&batch)).await;
    assert!(results.iter().all(Result::is_ok));
    let arrived = bench.vhost.take_all("p.cut").await.unwrap();
    let mut ids: Vec<usize> =
        arrived.iter().map(|d| d.properties.message_id().as_ref().unwrap().as_str().parse().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2001);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_broker_frozen_or_blocked_a_publish_ends_at_its_deadline_and_says_which() {
    let node = RabbitNode::start().await.unwrap();
    let bench = Bench::on(&node).await;
    bench.vhost.declare_queue("p.stuck").await.unwrap();
    let publisher = impatient(&bench);
    publisher.publish(&to("p.stuck", 1)).await.unwrap();

    node.freeze().unwrap();
    let begun = Instant::now();
    let error = publisher.publish(&to("p.stuck", 2)).await.unwrap_err();
    let took = begun.elapsed();
    node.thaw().unwrap();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(3), "{took:?}");
    assert!(matches!(&error, PublishError::TimedOut { cause: TimeoutCause::Unanswered, .. }), "{error}");
    assert!(error.to_string().contains("whether the message was queued is unknown"), "{error}");
    publisher.publish(&to("p.stuck", 3)).await.unwrap();

    // The end of a channel is not the end of its connection, whose alarms are still heard.
    let missing = Outgoing::new("p.no-such-exchange", "k", Message::new("t", "b"));
    assert!(matches!(publisher.publish(&missing).await, Err(PublishError::Unroutable { .. })));

    node.memory_alarm(true).await.unwrap();
    let mut causes = Vec::new();
    for n in 4..7 {
        let begun = Instant::now();
        let error = publisher.publish(&to("p.stuck", n)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        match error {
            PublishError::TimedOut { cause: TimeoutCause::Blocked { reason, written }, .. } => {
                causes.push((reason, written));
            }
            other => panic!("publish {n}: {other}"),
        }
    }
    assert!(metric("jm_mq_connection_blocked", &[("role", "publisher")]) >= 1.0);
    node.memory_alarm(false).await.unwrap();
    // The first was on its way when the broker said so; the later ones were held back.
    assert_eq!(
        causes,
        [("low on memory".into(), true), ("low on memory".into(), false), ("low on memory".into(), false)]
    );
    publisher.publish(&to("p.stuck", 7)).await.unwrap();
    let arrived = bench.vhost.take_all("p.stuck").await.unwrap();
    let ids: Vec<String> = arrived.iter().map(|d| d.properties.message_id().clone().unwrap().to_string()).collect();
    for held_back in ["5", "6"] {
        assert!(!ids.contains(&held_back.to_owned()), "{ids:?}");
    }
    for sent in ["1", "3", "7"] {
        assert!(ids.contains(&sent.to_owned()), "{ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_a_publish_ends_at_its_deadline_and_says_why() {
    let bench = Bench::shared().await;
    // Nothing listens on a port that was just free.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = broker_options(&bench.vhost, free);
    let timeout = Duration::from_millis(500);
    let bench = Bench::with(bench.vhost, options, PublisherOptions { timeout, ..PublisherOptions::default() });
    let error = bench.publisher.publish(&to("p.none", 1)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PublishError::NotConnected { .. }), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{free}")) && text.contains("refused"), "{text}");
    assert!(bench.publisher.declare(&Topology::work_queue("p.none")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_publisher_says_so_at_once() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.closed").await.unwrap();
    bench.publisher.publish(&to("p.closed", 1)).await.unwrap();
    bench.publisher.close().await;
    let begun = Instant::now();
    let error = bench.publisher.publish(&to("p.closed", 2)).await.unwrap_err();
    assert!(error.to_string().contains("this publisher is closed"), "{error}");
    assert!(bench.publisher.publish_all(&[to("p.closed", 3)]).await[0].is_err());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_publishes_at_once_share_few_channels() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("p.many").await.unwrap();
    let publishes = (0..500).map(|n| {
        let publisher = bench.publisher.clone();
        tokio::spawn(async move { publisher.publish(&to("p.many", n)).await })
    });
    for publish in publishes.collect::<Vec<_>>() {
        publish.await.unwrap().unwrap();
    }
    assert_eq!(bench.vhost.queue_counts("p.many").await.unwrap().ready, 500);
}
