use std::time::{Duration, Instant};

use jm_testkit::RabbitNode;
use lapin::BasicProperties;

#[tokio::test]
async fn a_node_starts_within_fifteen_seconds_and_survives_kill_and_restart_with_its_durable_messages() {
    let begin = Instant::now();
    let node = RabbitNode::start().await.unwrap();
    let took = begin.elapsed();
    println!("started in {took:?}");
    assert!(took < Duration::from_secs(15), "started in {took:?}");
    assert_ne!(node.port(), 5672);
    assert!(node.log().unwrap().contains("Starting RabbitMQ"));

    let vhost = node.vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    vhost.publish("tasks", persistent, b"kept").await.unwrap();

    let before = node.pid().unwrap();
    node.kill().await.unwrap();
    assert_eq!(node.pid(), None);
    assert!(vhost.publish("tasks", BasicProperties::default(), b"").await.is_err());
    let gone = node.wait_until_up(Duration::from_secs(1)).await.unwrap_err();
    assert!(format!("{gone:#}").contains("does not run"), "{gone:#}");

    let begin = Instant::now();
    node.restart().await.unwrap();
    println!("restarted in {:?}", begin.elapsed());
    assert_ne!(node.pid().unwrap(), before);
    let taken = vhost.take_all("tasks").await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].data, b"kept");

    let folder = node.folder();
    assert!(folder.exists());
    drop(node);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[tokio::test]
async fn a_node_is_of_the_version_that_was_asked_for() {
    let version = RabbitNode::shared().await.unwrap().version().await.unwrap();
    println!("RabbitMQ {version}");
    match std::env::var("JM_TEST_BROKER").as_deref() {
        Ok("4") => assert!(version.starts_with("4.0."), "{version}"),
        Ok("4.3") => assert!(version.starts_with("4.3."), "{version}"),
        _ => assert!(version.starts_with(|digit: char| digit.is_ascii_digit()), "{version}"),
    }
}

#[tokio::test]
async fn what_a_node_keeps_in_a_folder_is_there_for_the_next_one() {
    let kept = tempfile::tempdir().unwrap();
    let start = async |port: Option<u16>| {
        let builder = RabbitNode::builder().data_folder(kept.path());
        let builder = if let Some(port) = port { builder.port(port) } else { builder };
        builder.start().await.unwrap()
    };
    let node = start(None).await;
    let vhost = node.kept_vhost("mine", "me", "secret").await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.publish("tasks", BasicProperties::default().with_delivery_mode(2), b"kept").await.unwrap();
    let (name, port) = (node.name().to_owned(), node.port());
    node.stop().await.unwrap();
    assert_eq!(node.pid(), None);
    drop(node);

    let node = start(Some(port)).await;
    assert_eq!((node.name(), node.port()), (name.as_str(), port));
    let vhost = node.kept_vhost("mine", "me", "another").await.unwrap();
    assert!(vhost.uri().contains("me:another@"));
    drop(vhost.channel().await.unwrap());
    assert_eq!(vhost.take_all("tasks").await.unwrap()[0].data, b"kept");

    let taken = RabbitNode::builder().port(port).start().await.unwrap();
    assert_ne!(taken.port(), port);
}

#[tokio::test]
async fn a_folder_that_rabbitmq_would_hang_at_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spaced = folder.path().join("a b");
    std::fs::create_dir(&spaced).unwrap();
    let error = RabbitNode::builder().data_folder(&spaced).start().await.unwrap_err();
    assert!(format!("{error:#}").contains("letters, digits and /._-: "), "{error:#}");
}

#[tokio::test]
async fn a_line_of_configuration_and_an_advanced_term_reach_the_node_and_a_plugin_serves_on_its_own_port() {
    let node = RabbitNode::builder()
        .config_line("heartbeat = 7")
        .advanced_config("[{rabbit, [{consumer_timeout, 1234567}]}].")
        .plugin("rabbitmq_prometheus")
        .start()
        .await
        .unwrap();
    assert_eq!(node.eval("application:get_env(rabbit, heartbeat)").await.unwrap(), "{ok,7}");
    assert_eq!(node.eval("application:get_env(rabbit, consumer_timeout)").await.unwrap(), "{ok,1234567}");
    let port = node.http_port("rabbitmq_prometheus").unwrap();
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn a_wrong_configuration_is_an_error_that_shows_the_output_of_the_node() {
    let begin = Instant::now();
    let error = RabbitNode::builder().config_line("no.such.setting = 1").start().await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("no.such.setting"), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn an_expression_is_evaluated_in_milliseconds_whatever_its_length_or_the_length_of_its_value() {
    let node = RabbitNode::shared().await.unwrap();
    let begin = Instant::now();
    assert_eq!(node.eval("A = 1, B = A + 1, {A, B} % a comment").await.unwrap(), "{1,2}");
    println!("one evaluation took {:?}", begin.elapsed());

    let long = node.eval("lists:seq(1000, 100000)").await.unwrap();
    assert_eq!(long.matches(',').count(), 99_000);
    let text = "é\"\\'\n".repeat(20_000);
    let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    assert_eq!(node.eval(&format!("byte_size(<<{}>>)", bytes.join(","))).await.unwrap(), text.len().to_string());
}

#[tokio::test]
async fn an_expression_that_fails_or_does_not_parse_is_an_error_that_shows_it() {
    let node = RabbitNode::shared().await.unwrap();
    let error = node.eval("error(broken)").await.unwrap_err();
    assert!(format!("{error:#}").contains("broken"), "{error:#}");
    let error = node.eval("this is not Erlang").await.unwrap_err();
    assert!(format!("{error:#}").contains("this is not Erlang"), "{error:#}");
}

#[tokio::test]
async fn a_node_joins_the_cluster_of_another_and_sees_the_same_queues() {
    let first = RabbitNode::start().await.unwrap();
    let second = RabbitNode::builder().join(&first).unwrap().start().await.unwrap();
    let vhost = first.vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    assert!(second.view_of(&vhost).queue_exists("tasks").await.unwrap());
}
