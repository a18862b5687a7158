//! What stands at the broker's port and is no broker, and brokers whose refusals have several causes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jm_mq_core::{
    BrokerOptions, ConnectError, Declare, Message, Outgoing, Port, PublisherOptions, TlsOptions, Topology,
};
use jm_testkit::{Authority, RabbitNode};
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    Bench, Record, broker_options, is_reported_once, logs, one_worker, recording, waits_with, within,
};

/// A server that answers whatever it gets with these bytes and closes. Counts its connections.
async fn stranger(answer: &'static [u8]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut header = [0; 8];
            connection.read_exact(&mut header).await.unwrap();
            connection.write_all(answer).await.unwrap();
            // What the client has sent is read: unread bytes would turn the close into a reset.
            connection.shutdown().await.unwrap();
            while connection.read(&mut header).await.is_ok_and(|count| count > 0) {}
        }
    });
    (port, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_broker_is_named_once_in_the_log_and_tried_again_slowly() {
    let _ = logs();
    let bench = Bench::shared().await;
    let authority = Authority::new("an authority").unwrap();
    authority.sign("server", "localhost").unwrap();
    let mut files = authority.files_of("server");
    files.require_client_certificate = false;
    let encrypted = RabbitNode::builder().tls(files).start().await.unwrap();
    let tls = || Some(TlsOptions { ca_file: Some(authority.path("ca.pem")), ..TlsOptions::default() });
    let (http, dialled) = stranger(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    let (ssh, _) = stranger(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n").await;
    let (amqp_1, _) = stranger(b"AMQP\0\x01\0\0").await;
    for (case, port, tls, words) in [
        ("http", http, None, "it is an HTTP server (`HTTP/1.1 400 Bad Request`)"),
        ("ssh", ssh, None, "it is an SSH server (`SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3`)"),
        ("amqp-1", amqp_1, None, "it speaks AMQP 1.0 and not 0-9-1"),
        ("plain-to-tls", encrypted.tls_port().unwrap(), None, "it expects TLS at this port: set rabbitmq.tls"),
        ("tls-to-plain", bench.vhost.port, tls(), "the server at this port does not speak TLS"),
        ("tls-to-http", http, tls(), "the server at this port does not speak TLS"),
    ] {
        let options = BrokerOptions { host: "localhost".into(), tls, ..broker_options(&bench.vhost, port) };
        let bench = Bench::with(bench.vhost.clone(), options, PublisherOptions::default());
        let queue = format!("s.{case}");
        let running = bench.consumer(&queue, one_worker(), recording(&Record::new(), |_| async { Ok(()) })).start();
        let error = waits_with(&running, |_| true).await;
        assert!(error.is_fatal() && error.to_string().contains(words), "{case}: {error}");
        is_reported_once(&queue).await;
    }

    let before = dialled.load(Ordering::SeqCst);
    let options = BrokerOptions { port: Some(Port(http)), ..BrokerOptions::default() };
    let publisher = PublisherOptions { timeout: Duration::from_secs(2), ..PublisherOptions::default() };
    let bench = Bench::with(bench.vhost.clone(), options, publisher);
    let publishes =
        (0..20).map(|_| async { bench.publisher.publish(&Outgoing::to_queue("s.http", Message::new("t", "b"))).await });
    for outcome in futures_util::future::join_all(publishes).await {
        assert!(outcome.unwrap_err().to_string().contains("it is an HTTP server"));
    }
    assert_eq!(dialled.load(Ordering::SeqCst) - before, 1, "twenty publishes that wait share one refusal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_consumer_a_reserved_name_and_a_missing_permission_have_different_remedies() {
    let bench = Bench::shared().await;
    let start = |topology: Topology| {
        let router = recording(&Record::new(), |_| async { Ok(()) });
        let consumer = jm_mq_core::Consumer::new(&bench.broker, &bench.publisher, topology, one_worker(), router);
        consumer.unwrap().start()
    };
    bench.vhost.declare_queue("s.exclusive").await.unwrap();
    let channel = bench.vhost.channel().await.unwrap();
    let exclusive = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let elsewhere = channel
        .basic_consume("s.exclusive".into(), "elsewhere".into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    let running = start(Topology { exchange: String::new(), ..Topology::work_queue("s.exclusive") });
    let remedy_of = async |running: &jm_mq_core::RunningConsumer| {
        let error = waits_with(running, ConnectError::is_fatal).await;
        match error {
            ConnectError::Declaration { remedy, .. } => remedy,
            other => panic!("{other}"),
        }
    };
    assert!(remedy_of(&running).await.starts_with("another consumer has the queue exclusively; stop that consumer"));
    drop(elsewhere);
    channel.close(200, "done".into()).await.unwrap();
    within("ready once the other has gone", running.ready()).await;

    let reserved = start(Topology::work_queue("amq.jm"));
    assert!(remedy_of(&reserved).await.starts_with("names that begin with `amq.` are the broker's own"));
    let missing = start(Topology { declare: Declare::Check, ..Topology::work_queue("s.missing") });
    assert!(remedy_of(&missing).await.starts_with("create it first"));
    bench.vhost.set_permissions(&bench.vhost.user, "", "", "").await.unwrap();
    let forbidden = start(Topology::work_queue("s.forbidden"));
    assert!(remedy_of(&forbidden).await.starts_with("grant the user permission"));
}
