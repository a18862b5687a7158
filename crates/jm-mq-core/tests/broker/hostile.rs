//! Bad handlers and bad messages.

use std::time::Duration;

use jm_mq_core::{BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, PublisherOptions, Router, Topology};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    Bench, Gate, Record, broker_options, header, held, logs, metric, metric_reaches, one_worker, quick, recording,
    text_header, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_block_every_thread_leave_the_heartbeats_alive() {
    let bench = Bench::shared().await;
    // The broker gives up on a silent client after two or three of these.
    let options = BrokerOptions { heartbeat: Duration::from_secs(1), ..broker_options(&bench.vhost, bench.vhost.port) };
    let bench = Bench::with(bench.vhost, options, PublisherOptions::default());
    let runs = Record::new();
    let router = recording(&runs, |_| async {
        // Not a wait of the test: this is the bad handler. All threads of the application's runtime are in here.
        std::thread::sleep(Duration::from_secs(6));
        Ok(())
    });
    bench.vhost.declare_queue("h.blocking").await.unwrap();
    let consumer = bench.consumer("h.blocking", ConsumerOptions { concurrency: 4, ..quick() }, router);
    let (drain, drained) = tokio::sync::oneshot::channel();
    // A runtime of its own: what the test itself does is not to wait for the handlers.
    let application = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(consumer.run_until(async { drained.await.unwrap() }))
    });
    for n in 0..4 {
        bench.send("h.blocking", "task", &n.to_string(), "{}").await;
    }
    runs.reaches(4).await;
    bench.settled("h.blocking").await;
    assert_eq!(runs.len(), 4, "none was redelivered");
    assert!(metric("jm_mq_reconnects_total", &[("queue", "h.blocking")]).abs() < f64::EPSILON);
    drain.send(()).unwrap();
    tokio::task::spawn_blocking(|| application.join().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_hanging_or_blocking_handler_leaves_its_siblings_alone() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |cx| async move {
        match cx.message_id() {
            Some("panics") => panic!("on purpose"),
            Some("hangs") => std::future::pending().await,
            Some("blocks") => std::thread::sleep(Duration::from_secs(1)),
            _ => {}
        }
        Ok(())
    });
    let options = ConsumerOptions {
        concurrency: 4,
        prefetch_per_worker: 1,
        nack_requeue: false,
        handler_timeout: Duration::from_secs(1),
        max_retry_attempts: 1,
        ..quick()
    };
    let _running = bench.consume("h.siblings", options, router).await;
    for id in ["panics", "hangs", "blocks"] {
        bench.send("h.siblings", "task", id, "{}").await;
    }
    runs.reaches(3).await;
    let task =
        |n: usize| (BasicProperties::default().with_type("task".into()).with_message_id(n.to_string().into()), "{}");
    bench.vhost.publish_many("h.siblings", (0..100).map(task)).await.unwrap();
    let mut dead: Vec<String> =
        bench.dead("h.siblings", 2).await.iter().map(|dead| text_header(dead, "jm-error-kind")).collect();
    dead.sort_unstable();
    assert_eq!(dead, ["panic", "timeout"]);
    bench.settled("h.siblings").await;
    let count = |id: &str| runs.all().iter().filter(|(run, _)| run == id).count();
    assert_eq!((count("panics"), count("hangs"), count("blocks")), (2, 2, 1));
    assert!((0..100).all(|n| count(&n.to_string()) == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_are_dead_lettered_with_their_kind_and_one_escaped_line() {
    let logs = logs();
    let bench = Bench::shared().await;
    let runs = Record::new();
    let _running = bench.consume("h.malformed", one_worker(), recording(&runs, |_| async { Ok(()) })).await;
    let task = || BasicProperties::default().with_type("task".into());
    let headers = |name: &'static str, value: &str| {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
        headers
    };
    let malformed: [(&str, BasicProperties, Vec<u8>); 8] = [
        ("undecodable", task(), b"{\"half\":".to_vec()),
        ("undecodable", task(), b"\xff\xfe\"bad UTF-8\"".to_vec()),
        ("undecodable", task(), b"".to_vec()),
        ("undecodable", task(), "[".repeat(10_000).into_bytes()),
        ("unknown_type", BasicProperties::default(), b"{}".to_vec()),
        ("unknown_type", BasicProperties::default().with_type("no\r\nsuch\x1b[31m type".into()), b"{}".to_vec()),
        (
            "unknown_type",
            BasicProperties::default().with_headers(headers("evil", "a\r\nERROR forged \x1b[2J")),
            b"{}".to_vec(),
        ),
        (
            "unknown_type",
            BasicProperties::default().with_headers(headers("heavy", &"h".repeat(64 * 1024))),
            b"{}".to_vec(),
        ),
    ];
    for (_, properties, body) in &malformed {
        bench.vhost.publish("h.malformed", properties.clone(), body).await.unwrap();
    }
    let dead = bench.dead("h.malformed", 8).await;
    bench.settled("h.malformed").await;
    for (dead, (kind, properties, body)) in dead.iter().zip(&malformed) {
        assert_eq!(&text_header(dead, "jm-error-kind"), kind);
        assert_eq!(&dead.data, body, "to the byte");
        for (name, value) in properties.headers().clone().unwrap_or_default().inner() {
            assert_eq!(header(dead, name.as_str()), Some(value));
        }
    }
    assert_eq!(runs.len(), 0);
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("h.malformed") && line.contains("ERROR")).collect();
    assert_eq!(lines.len(), 8, "one line each: {lines:#?}");
    assert!(lines.iter().any(|line| line.contains(r"no\r\nsuch\u{1b}[31m type")), "{lines:#?}");
    assert!(!log.contains('\x1b') && !log.contains("\nERROR forged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text_and_bottomless_headers_cost_neither_connection_nor_process() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let _running = bench.consume("h.bytes", one_worker(), recording(&runs, |_| async { Ok(()) })).await;
    // No client library that checks its strings can send these, so the broker publishes them itself.
    let node = jm_testkit::RabbitNode::shared().await.unwrap();
    let publish = async |headers: &str, correlation_id: &str, kind: &str| {
        let properties = format!(
            "{{'P_basic', undefined, undefined, {headers}, undefined, undefined, {correlation_id}, undefined, undefined, \
             undefined, undefined, {kind}, undefined, undefined, undefined}}"
        );
        let exchange = format!("rabbit_misc:r(<<\"{}\">>, exchange, <<>>)", bench.vhost.name);
        // RabbitMQ 4 has another function for it.
        let published = format!(
            "Key = <<\"h.bytes\">>, Exchange = {exchange}, Properties = {properties}, Body = <<\"{{}}\">>, \
             case erlang:function_exported(rabbit_basic, publish, 4) of \
             true -> rabbit_basic:publish(Exchange, Key, Properties, Body); \
             false -> \
                 {{ok, Message}} = mc_amqpl:message(Exchange, Key, rabbit_basic:build_content(Properties, Body)), \
                 rabbit_queue_type:publish_at_most_once(Exchange, Message) \
             end"
        );
        node.eval(&published).await.unwrap();
    };
    let half_a_character = "<<97, 233, 162>>";
    let bottomless =
        "[{<<\"k\">>, array, [lists:foldl(fun(_, Inner) -> {array, [Inner]} end, {long, 1}, lists:seq(1, 20000))]}]";
    publish("undefined", "undefined", half_a_character).await;
    publish("undefined", half_a_character, "<<\"task\">>").await;
    publish("[{<<255>>, longstr, <<\"v\">>}]", "undefined", "<<\"task\">>").await;
    publish(bottomless, "undefined", "<<\"task\">>").await;
    publish(bottomless, "undefined", "<<\"unknown\">>").await;
    let dead = bench.dead("h.bytes", 2).await;
    bench.settled("h.bytes").await;
    assert_eq!(runs.len(), 3);
    assert_eq!(dead[0].properties.kind().as_ref().unwrap().as_str(), "a??");
    assert_eq!(text_header(&dead[1], "jm-error-kind"), "unknown_type");
    assert!(metric("jm_mq_reconnects_total", &[("queue", "h.bytes")]).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_malformed_messages_between_ten_thousand_good_ones_are_all_accounted_for() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = Router::new().on_type("task", {
        let runs = runs.clone();
        move |n: usize, _: Context| {
            runs.add(n);
            async { Ok::<_, HandlerError>(()) }
        }
    });
    let running = bench.consume("h.flood", ConsumerOptions { prefetch_per_worker: 20, ..quick() }, router).await;
    let task = BasicProperties::default().with_type("task".into());
    let message = |n: usize| match n % 6 {
        5 if n % 12 == 5 => (task.clone(), format!("{{{n}")),
        5 => (task.clone().with_type("mystery".into()), n.to_string()),
        _ => (task.clone(), n.to_string()),
    };
    bench.vhost.publish_many("h.flood", (0..12_000).map(message)).await.unwrap();
    bench.settled("h.flood").await;
    let mut good = runs.all();
    good.sort_unstable();
    assert_eq!(good, (0..12_000).filter(|n| n % 6 != 5).collect::<Vec<_>>(), "each good one exactly once");

    let mut dead: Vec<(String, Vec<u8>)> = bench
        .dead("h.flood", 2000)
        .await
        .into_iter()
        .map(|dead| (text_header(&dead, "jm-error-kind"), dead.data))
        .collect();
    let mut expected: Vec<(String, Vec<u8>)> = (0..12_000)
        .filter(|n| n % 6 == 5)
        .map(|n| match n % 12 {
            5 => ("undecodable".to_owned(), format!("{{{n}").into_bytes()),
            _ => ("unknown_type".to_owned(), n.to_string().into_bytes()),
        })
        .collect();
    dead.sort_unstable();
    expected.sort_unstable();
    assert_eq!(dead, expected);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_settled_before_the_brokers_timeout_is_handed_back_and_answered_when_it_returns() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let gate = Gate::closed();
    let hold = gate.clone();
    let router = recording(&runs, move |cx| {
        let hold = hold.clone();
        async move {
            if cx.message_id() == Some("slow") {
                hold.passed().await;
            }
            Ok(())
        }
    });
    // Starts within 1.35 s, settles within 2.7 s.
    let options = ConsumerOptions {
        consumer_timeout: Duration::from_secs(3),
        handler_timeout: Duration::ZERO,
        prefetch_per_worker: 3,
        ..one_worker()
    };
    let running = bench.consume("h.overdue", options, router).await;
    bench.send("h.overdue", "task", "slow", "{}").await;
    runs.reaches(1).await;
    bench.send("h.overdue", "task", "behind", "{}").await;
    // A colleague with time takes what was handed back, while the slow one still runs.
    let colleague = Record::new();
    let router = recording(&colleague, |_| async { Ok(()) });
    let options = ConsumerOptions { prefetch_per_worker: 1, ..one_worker() };
    let other =
        Consumer::new(&bench.broker, &bench.publisher, Topology::work_queue("h.overdue"), options, router).unwrap();
    let other = other.start();
    within("ready", other.ready()).await;
    // It may come back to its first worker a few times.
    let mut runs_there = colleague.subscribe();
    within("behind", runs_there.wait_for(|runs| runs.iter().any(|(id, _)| id == "behind"))).await.unwrap();
    // Then the running one itself: whoever gets it, it is settled in the end.
    metric_reaches("jm_mq_nacks_total", &[("queue", "h.overdue"), ("requeue", "true")], 2.0).await;
    gate.open();
    bench.settled("h.overdue").await;
    assert!(metric("jm_mq_reconnects_total", &[("queue", "h.overdue")]).abs() < f64::EPSILON, "no channel was lost");
    drop((running, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_handed_back_is_not_run_again_by_the_same_process() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let gate = Gate::closed();
    let router = held(&runs, &gate);
    let options =
        ConsumerOptions { consumer_timeout: Duration::from_secs(1), handler_timeout: Duration::ZERO, ..one_worker() };
    let _running = bench.consume("h.returned", options, router).await;
    bench.send("h.returned", "task", "1", "{}").await;
    runs.reaches(1).await;
    metric_reaches("jm_mq_nacks_total", &[("queue", "h.returned"), ("requeue", "true")], 1.0).await;
    gate.open();
    bench.settled("h.returned").await;
    assert_eq!(runs.len(), 1);
    assert!(bench.vhost.take_all("h.returned.dead").await.unwrap().is_empty());
}
