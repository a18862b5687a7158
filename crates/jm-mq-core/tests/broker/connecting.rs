//! How a connection comes about: credentials, several hosts, TLS.

use std::{path::Path, time::Duration};

use jm_mq_core::{
    Broker, BrokerOptions, ConnectError, Consumer, ConsumerOptions, ConsumerState, Context, HandlerError, HostOptions,
    Message, Outgoing, Port, Publisher, PublisherOptions, RawMessage, Router, TlsOptions, Topology,
};
use jm_testkit::{Authority, RabbitNode, TcpProxy, Vhost};

use crate::support::{Bench, Record, broker_options, quick, recording, within};

#[tokio::test(flavor = "multi_thread")]
async fn any_character_in_name_password_and_vhost_works() {
    let node = RabbitNode::shared().await.unwrap();
    let vhost = node.vhost_named("/v h%2f:?#@ü", "us/er:%40 ö", "p@ss/%:?#[]\"'\\ 密").await.unwrap();
    let port = vhost.port;
    let bench = Bench::at(vhost, port);
    let runs = Record::new();
    let _running = bench.consume("c.characters", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let task = Outgoing::new("c.characters", "c.characters", Message::new("task", "{}"));
    bench.publisher.publish(&task).await.unwrap();
    runs.reaches(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_one_that_answers_is_found() {
    let bench = Bench::shared().await;
    let silent = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    silent.swallow(true);
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = |port| HostOptions { host: "127.0.0.1".into(), port: Some(Port(port)) };
    let options = BrokerOptions {
        host: "localhost".into(),
        hosts: vec![host(silent.port()), host(bench.vhost.port)],
        connect_timeout: Duration::from_secs(1),
        ..broker_options(&bench.vhost, refused)
    };
    let bench = Bench::with(bench.vhost, options, PublisherOptions::default());
    let runs = Record::new();
    // Each starts with another host.
    for n in 0..6 {
        let queue = format!("c.hosts.{n}");
        let _running = bench.consume(&queue, quick(), recording(&runs, |_| async { Ok(()) })).await;
        bench.send(&queue, "task", "1", "{}").await;
        runs.reaches(n + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_and_a_missing_vhost_are_told_apart_from_a_broker_that_is_away() {
    let bench = Bench::shared().await;
    let right = || broker_options(&bench.vhost, bench.vhost.port);
    let wrong: [(BrokerOptions, bool, &str); 4] = [
        (BrokerOptions { password: "canary".into(), ..right() }, true, "refuses user"),
        (BrokerOptions { name: "nobody".into(), ..right() }, true, "refuses user `nobody`"),
        (BrokerOptions { vhost: "no-such".into(), ..right() }, true, "virtual host `no-such`"),
        (BrokerOptions { host: "host.invalid".into(), ..right() }, false, "cannot reach RabbitMQ at host.invalid"),
    ];
    for (options, fatal, words) in wrong {
        let bench = Bench::with(bench.vhost.clone(), options, PublisherOptions::default());
        let runs = Record::new();
        let running = bench.consumer("c.refused", quick(), recording(&runs, |_| async { Ok(()) })).start();
        let mut states = running.states();
        let waiting = |state: &ConsumerState| matches!(state, ConsumerState::Waiting { .. });
        let state = within("refused", states.wait_for(waiting)).await.unwrap().clone();
        let ConsumerState::Waiting { error } = state else { unreachable!() };
        assert_eq!(error.is_fatal(), fatal, "{error}");
        assert!(error.to_string().contains(words) && !error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn constructors_refuse_bad_options_by_name_and_value_and_start_nothing() {
    let broker = Broker::new(BrokerOptions::default()).unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let refused = |queue: &str, change: fn(&mut ConsumerOptions)| {
        let mut options = ConsumerOptions::default();
        change(&mut options);
        let router = Router::new().fallback(async |_: RawMessage, _: Context| Ok::<_, HandlerError>(()));
        let topology = Topology::work_queue(queue);
        Consumer::new(&broker, &publisher, topology, options, router).unwrap_err().to_string()
    };
    assert_eq!(refused("q", |o| o.concurrency = 0), "option `concurrency` is 0; allowed: 1 to 1000");
    assert!(refused("q", |o| o.retry_base_delay = Duration::from_secs(31)).contains("`retry_base_delay` is 31s"));
    assert!(refused(&"q".repeat(256), |_| {}).starts_with("option `queue` is"));
    // Its dead letters' queue would have a name that is too long.
    assert!(refused(&"q".repeat(251), |_| {}).starts_with("option `dead_letter_queue` is"));
    assert!(refused("q", |o| o.dead_letter_queue = Some("q".into())).contains("another queue than the consumed one"));
    let channels = PublisherOptions { channels: 0, ..PublisherOptions::default() };
    let error = Publisher::new(&broker, channels).unwrap_err().to_string();
    assert_eq!(error, "option `publisher.channels` is 0; allowed: 1 to 1000");
    let heartbeat = BrokerOptions { heartbeat: Duration::ZERO, ..BrokerOptions::default() };
    assert!(Broker::new(heartbeat).unwrap_err().to_string().starts_with("option `heartbeat` is 0ns"));
}

async fn publish_over(vhost: &Vhost, port: u16, tls: TlsOptions) -> Result<(), String> {
    let options = BrokerOptions { host: "localhost".into(), tls: Some(tls), ..broker_options(vhost, port) };
    let broker = Broker::new(options).map_err(|error| error.to_string())?;
    let timeout = Duration::from_secs(2);
    let publisher = Publisher::new(&broker, PublisherOptions { timeout, ..PublisherOptions::default() }).unwrap();
    let outgoing = Outgoing::to_queue("c.tls", Message::new("t", "b"));
    publisher.publish(&outgoing).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_both_ways_and_its_failures_say_why() {
    let ours = Authority::new("our authority").unwrap();
    ours.sign("server", "localhost").unwrap();
    ours.sign("client", "jm-mq").unwrap();
    let other = Authority::new("another authority").unwrap();
    other.sign("client", "intruder").unwrap();
    let node = RabbitNode::builder().tls(ours.files_of("server")).start().await.unwrap();
    let vhost = node.vhost().await.unwrap();
    vhost.declare_queue("c.tls").await.unwrap();
    let port = node.tls_port().unwrap();
    let tls = |authority: &Path, client: Option<&Authority>, server_name: Option<&str>| TlsOptions {
        ca_file: Some(authority.into()),
        cert_file: client.map(|client| client.path("client.pem")),
        key_file: client.map(|client| client.path("client.key")),
        server_name: server_name.map(str::to_owned),
    };
    let (right, wrong) = (ours.path("ca.pem"), other.path("ca.pem"));
    publish_over(&vhost, port, tls(&right, Some(&ours), None)).await.unwrap();

    let unknown_authority = publish_over(&vhost, port, tls(&wrong, Some(&ours), None)).await.unwrap_err();
    assert!(
        unknown_authority.contains("TLS with localhost") && unknown_authority.contains("UnknownIssuer"),
        "{unknown_authority}"
    );
    let wrong_name = publish_over(&vhost, port, tls(&right, Some(&ours), Some("rabbit.example"))).await.unwrap_err();
    assert!(wrong_name.contains("TLS with localhost"), "{wrong_name}");
    publish_over(&vhost, port, tls(&right, None, None)).await.unwrap_err();
    publish_over(&vhost, port, tls(&right, Some(&other), None)).await.unwrap_err();
    assert_eq!(vhost.queue_counts("c.tls").await.unwrap().ready, 1);
    let fatal = ConnectError::Tls { host: "h".into(), reason: "r".into() };
    assert!(fatal.is_fatal());
}
