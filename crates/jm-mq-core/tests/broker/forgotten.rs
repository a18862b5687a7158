//! The broker has forgotten consumers, and the connection lives: what an idle worker cannot see by itself.

use std::time::{Duration, Instant};

use jm_mq_core::{Broker, BrokerOptions, ConsumerOptions, ConsumerState, Publisher, PublisherOptions, metrics};
use jm_testkit::{RabbitNode, TcpProxy};

use crate::support::{Bench, Record, broker_options, metric, metric_becomes, not_ready, quick, recording, within};

/// Has a classic queue forget its `which` consumers, an Erlang expression over `Consumers`, without a word to their channels.
async fn forget(bench: &Bench, queue: &str, which: &str) {
    let node = RabbitNode::shared().await.unwrap();
    let expression = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)),
         Consumers = lists:keysort(2, rabbit_amqqueue:consumers(Q)),
         {{ok, Version}} = application:get_key(rabbit, vsn),
         [ok = gen_server2:call(amqqueue:get_pid(Q), case Version of
             \"3.\" ++ _ -> {{basic_cancel, element(1, C), element(2, C), undefined, <<\"test\">>}};
             _ -> {{stop_consumer, #{{pid => element(1, C), consumer_tag => element(2, C), ok_msg => undefined,
                                     user => <<\"test\">>, reason => cancel}}}}
         end, infinity) || C <- {which}], ok",
        vhost = bench.vhost.name,
    );
    assert_eq!(node.eval(&expression).await.unwrap(), "ok");
}

fn every(interval: Duration) -> ConsumerOptions {
    ConsumerOptions { concurrency: 3, backlog_interval: interval, ..quick() }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_the_broker_has_forgotten_are_registered_again_within_two_intervals() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let bench = Bench::shared().await;
    // All of them, and one of them alone.
    for (queue, which) in [("f.all", "Consumers"), ("f.one", "[hd(Consumers)]")] {
        let runs = Record::new();
        let running = bench.consume(queue, every(INTERVAL), recording(&runs, |_| async { Ok(()) })).await;
        metric_becomes(metrics::QUEUE_CONSUMERS, &[("queue", queue)], 3.0).await;
        forget(&bench, queue, which).await;
        let begun = Instant::now();
        for n in 0..4 {
            bench.send(queue, "task", &n.to_string(), "{}").await;
        }
        not_ready(&running).await;
        within("ready again", running.ready()).await;
        assert!(begun.elapsed() < 2 * INTERVAL, "{queue}: {:?}", begun.elapsed());
        bench.settled(queue).await;
        assert_eq!(runs.len(), 4);
        assert_eq!(bench.vhost.queue_counts(queue).await.unwrap().consumers, 3);
        let reconnects = metric("jm_mq_reconnects_total", &[("queue", queue), ("reason", "forgotten")]);
        assert!((reconnects - 1.0).abs() < f64::EPSILON, "{queue}: {reconnects}");
        running.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_is_unknown_while_the_broker_does_not_answer_and_known_again_afterwards() {
    let node = RabbitNode::shared().await.unwrap();
    let vhost = node.vhost().await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let mut bench = Bench::at(vhost, proxy.port());
    let options =
        BrokerOptions { rpc_timeout: Duration::from_millis(300), ..broker_options(&bench.vhost, proxy.port()) };
    bench.broker = Broker::new(options).unwrap();
    bench.publisher = Publisher::new(&bench.broker, PublisherOptions::default()).unwrap();
    let runs = Record::new();
    let running = bench.consume("f.gauges", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let queue = [("queue", "f.gauges")];
    metric_becomes(metrics::QUEUE_CONSUMERS, &queue, 10.0).await;
    let gauges = [metrics::QUEUE_CONSUMERS, metrics::QUEUE_MESSAGES_READY];
    let known = async |wanted: bool| {
        let known = async {
            while gauges.iter().any(|gauge| metric(gauge, &queue).is_nan() == wanted) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(&format!("known: {wanted}"), known).await;
    };
    proxy.stall(true);
    known(false).await;
    assert!(matches!(*running.states().borrow(), ConsumerState::Ready), "nothing else is wrong yet");
    proxy.stall(false);
    known(true).await;
    metric_becomes(metrics::QUEUE_CONSUMERS, &queue, 10.0).await;
    running.shutdown().await;
    known(false).await;
}
