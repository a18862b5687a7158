//! Who we are to the broker: client certificates, secrets that are replaced while we run, and addresses of IPv6.

use std::fs;

use jm_mq_core::{
    Auth, BrokerOptions, ConnectError, ConsumerOptions, HostOptions, Message, Outgoing, Port, PublisherOptions,
    RunningConsumer, TlsOptions,
};
use jm_testkit::{Authority, RabbitNode, Vhost};
use tokio::sync::OnceCell;

use crate::support::{
    Bench, Record, broker_options, is_reported_once, logs, quick, recording, waiting, waits_with, within,
};

/// A node that asks for client certificates, knows SASL EXTERNAL, listens at `::1` too, and allows few channels.
struct Strict {
    authority: Authority,
    node: RabbitNode,
    /// At `::1`, without TLS.
    ipv6_port: u16,
}

const CHANNEL_MAX: u16 = 6;

async fn strict() -> &'static Strict {
    static NODE: OnceCell<Strict> = OnceCell::const_new();
    NODE.get_or_init(async || {
        let authority = Authority::new("our authority").unwrap();
        authority.sign("server", "localhost").unwrap();
        authority.sign("client", "jm-mq").unwrap();
        let ipv6_port = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
        let builder = RabbitNode::builder()
            .tls(authority.files_of("server"))
            .plugin("rabbitmq_auth_mechanism_ssl")
            .config_line("auth_mechanisms.1 = PLAIN")
            .config_line("auth_mechanisms.2 = EXTERNAL")
            .config_line("ssl_cert_login_from = common_name")
            .config_line(format!("listeners.tcp.2 = ::1:{ipv6_port}"))
            .config_line(format!("channel_max = {CHANNEL_MAX}"));
        let node = builder.start().await.unwrap();
        Strict { authority, node, ipv6_port }
    })
    .await
}

impl Strict {
    fn tls(&self) -> TlsOptions {
        TlsOptions {
            ca_file: Some(self.authority.path("ca.pem")),
            cert_file: Some(self.authority.path("client.pem")),
            key_file: Some(self.authority.path("client.key")),
            server_name: None,
        }
    }

    fn options(&self, vhost: &Vhost, tls: TlsOptions) -> BrokerOptions {
        let port = self.node.tls_port().unwrap();
        BrokerOptions { host: "localhost".into(), tls: Some(tls), ..broker_options(vhost, port) }
    }
}

fn few() -> ConsumerOptions {
    ConsumerOptions { concurrency: 2, ..quick() }
}

/// Starts a consumer that has nothing to do.
fn start(bench: &Bench, queue: &str, options: ConsumerOptions) -> RunningConsumer {
    bench.consumer(queue, options, recording(&Record::new(), |_| async { Ok(()) })).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_an_identity_without_name_and_password() {
    let strict = strict().await;
    let vhost = strict.node.vhost().await.unwrap();
    vhost.add_user("jm-mq", "not used").await.unwrap();
    let external = BrokerOptions {
        auth: Auth::External,
        name: "guest".into(),
        password: "".into(),
        ..strict.options(&vhost, strict.tls())
    };
    let bench = Bench::with(vhost, external, PublisherOptions::default());
    let running = start(&bench, "c.external", few());
    let refused = waiting(&running).await.to_string();
    assert!(refused.contains("refuses the client certificate at virtual host"), "{refused}");
    assert!(
        refused.ends_with("grant the user permissions in the virtual host (rabbitmqctl set_permissions)"),
        "{refused}"
    );
    bench.vhost.set_permissions("jm-mq", ".*", ".*", ".*").await.unwrap();
    within("ready", running.ready()).await;
    bench.publisher.publish(&Outgoing::to_queue("c.external", Message::new("task", "{}"))).await.unwrap();
    bench.settled("c.external").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_missing_expired_or_foreign_is_one_clear_error_and_slow_retries() {
    let _ = logs();
    let strict = strict().await;
    let vhost = strict.node.vhost().await.unwrap();
    strict.authority.sign_expired("expired", "jm-mq").unwrap();
    let foreign = Authority::new("another authority").unwrap();
    foreign.sign("client", "jm-mq").unwrap();
    let of = |authority: &Authority, name: &str| TlsOptions {
        cert_file: Some(authority.path(&format!("{name}.pem"))),
        key_file: Some(authority.path(&format!("{name}.key"))),
        ..strict.tls()
    };
    for (case, tls, words) in [
        ("missing", TlsOptions { cert_file: None, key_file: None, ..strict.tls() }, "asks for a client certificate"),
        ("expired", of(&strict.authority, "expired"), "certificate in tls.cert_file has expired: replace it"),
        ("foreign", of(&foreign, "client"), "does not accept the client certificate in tls.cert_file"),
    ] {
        let bench = Bench::with(vhost.clone(), strict.options(&vhost, tls), PublisherOptions::default());
        let queue = format!("c.certificate.{case}");
        let running = start(&bench, &queue, few());
        let error = waiting(&running).await;
        assert!(matches!(error, ConnectError::Tls { .. }) && error.is_fatal(), "{case}: {error}");
        assert!(error.to_string().contains(words), "{case}: {error}");
        is_reported_once(&queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_is_taken_from_its_file_without_a_restart() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{}\n", vhost.password)).unwrap();
    let options = BrokerOptions {
        password: "not used".into(),
        password_file: Some(file.clone()),
        ..broker_options(&vhost, vhost.port)
    };
    let bench = Bench::with(vhost, options, PublisherOptions::default());
    let running = start(&bench, "c.rotated", quick());
    within("ready", running.ready()).await;
    bench.publisher.publish(&Outgoing::to_queue("c.rotated", Message::new("task", "{}"))).await.unwrap();

    bench.vhost.change_password(&bench.vhost.user, "the next one").await.unwrap();
    bench.vhost.close_connections("on purpose").await.unwrap();
    let refused = waits_with(&running, ConnectError::is_fatal).await;
    assert!(refused.to_string().ends_with("check the name and the password"), "{refused}");
    fs::write(&file, "the next one\n").unwrap();
    within("ready again", running.ready()).await;
    bench.publisher.publish(&Outgoing::to_queue("c.rotated", Message::new("task", "{}"))).await.unwrap();
    bench.settled("c.rotated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificates_and_authorities_are_used_from_the_next_connect_on() {
    let strict = strict().await;
    let vhost = strict.node.vhost().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file);
    let put = |authority: &Authority, name: &str| {
        for end in ["pem", "key"] {
            fs::copy(authority.path(&format!("{name}.{end}")), path(&format!("client.{end}"))).unwrap();
        }
    };
    let other = Authority::new("an authority of yesterday").unwrap();
    fs::copy(other.path("ca.pem"), path("ca.pem")).unwrap();
    strict.authority.sign_expired("yesterday", "jm-mq").unwrap();
    put(&strict.authority, "yesterday");
    let tls = TlsOptions {
        ca_file: Some(path("ca.pem")),
        cert_file: Some(path("client.pem")),
        key_file: Some(path("client.key")),
        server_name: None,
    };
    let bench = Bench::with(vhost.clone(), strict.options(&vhost, tls), PublisherOptions::default());
    let running = start(&bench, "c.replaced", few());
    let error = waiting(&running).await.to_string();
    assert!(error.contains("UnknownIssuer") && error.ends_with("that signed the broker's certificate"), "{error}");
    fs::copy(strict.authority.path("ca.pem"), path("ca.pem")).unwrap();
    let expired = waits_with(&running, |error| error.to_string().contains("expired")).await;
    assert!(expired.is_fatal());
    put(&strict.authority, "client");
    within("ready", running.ready()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_at_an_ipv6_address_is_reached_by_every_way_to_write_it() {
    let strict = strict().await;
    let vhost = strict.node.vhost().await.unwrap();
    let (user, password, name, port) = (&vhost.user, &vhost.password, &vhost.name, strict.ipv6_port);
    let dsn = BrokerOptions::from_dsn(&format!("amqp://{user}:{password}@[::1]:{port}/{name}")).unwrap();
    let of_host = |host: &str| BrokerOptions { host: host.into(), ..broker_options(&vhost, port) };
    let nowhere = HostOptions { host: "[::1]".into(), port: Some(Port(9)) };
    let several = BrokerOptions { hosts: vec![nowhere], ..of_host("::1") };
    for (n, options) in [dsn, of_host("::1"), of_host("[::1]"), several].into_iter().enumerate() {
        let bench = Bench::with(vhost.clone(), options, PublisherOptions::default());
        let running = start(&bench, &format!("c.ipv6.{n}"), few());
        within("ready", running.ready()).await;
    }
    let away = BrokerOptions { port: Some(Port(9)), ..of_host("[::1]") };
    let bench = Bench::with(vhost, away, PublisherOptions::default());
    let error = waiting(&start(&bench, "c.ipv6.away", few())).await.to_string();
    assert!(error.starts_with("cannot reach RabbitMQ at [::1]:9: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_channels_than_workers_are_an_error_for_an_operator_and_fewer_than_publishes_are_shared() {
    let strict = strict().await;
    let vhost = strict.node.vhost().await.unwrap();
    let options = broker_options(&vhost, vhost.port);
    let bench = Bench::with(vhost, options, PublisherOptions::default());
    let workers = usize::from(CHANNEL_MAX);
    let running = start(&bench, "c.channels", ConsumerOptions { concurrency: workers, ..quick() });
    let error = waiting(&running).await;
    assert!(error.is_fatal(), "{error}");
    assert!(
        error.to_string().starts_with("RabbitMQ allows 6 channels on a connection (channel_max), and 7 are"),
        "{error}"
    );
    let fits = start(&bench, "c.channels", ConsumerOptions { concurrency: workers - 1, ..quick() });
    within("ready", fits.ready()).await;
    running.shutdown().await;

    let publishes = (0..64).map(|_| async {
        bench.publisher.publish(&Outgoing::to_queue("c.channels", Message::new("task", "{}"))).await
    });
    for outcome in futures_util::future::join_all(publishes).await {
        outcome.unwrap();
    }
    // The consumer's and the publisher's: a channel that was not to be had cost no connection.
    assert_eq!(bench.vhost.close_connections("to count them").await.unwrap(), 2);
}
