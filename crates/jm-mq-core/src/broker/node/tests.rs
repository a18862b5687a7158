//! Names with several addresses, all on loopback, of which some do not answer.

use std::net::Ipv4Addr;

use jm_testkit::RabbitNode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

use super::*;
use crate::broker::{BrokerOptions, ConnectionPool, HostOptions, Port, Role, resolver::Resolver};

const LIMIT: Duration = Duration::from_secs(5);

/// A `connection.start` without properties.
const FRAME: &[u8] = b"\x01\0\0\0\0\0\x1c\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US\xce";

/// Servers on one port of several loopback addresses, named `rabbit`.
struct Servers {
    port: u16,
    addresses: Vec<SocketAddr>,
    running: JoinSet<()>,
    /// Connections that fill a queue.
    waiting: Vec<TcpStream>,
    full: Vec<TcpListener>,
}

impl Servers {
    /// At a port that is free on all addresses of the test.
    async fn new() -> Self {
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap().local_addr().unwrap().port();
        Self::at(port)
    }

    fn at(port: u16) -> Self {
        Self { port, addresses: Vec::new(), running: JoinSet::new(), waiting: Vec::new(), full: Vec::new() }
    }

    /// The next address: 127.0.7.1 and so on.
    fn address(&mut self) -> SocketAddr {
        let last = u8::try_from(self.addresses.len() + 1).unwrap();
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 7, last), self.port));
        self.addresses.push(address);
        address
    }

    /// Accepts and answers with these bytes; with none, it stays silent.
    async fn answering(&mut self, answer: &'static [u8]) -> &mut Self {
        let listener = TcpListener::bind(self.address()).await.unwrap();
        self.running.spawn(async move {
            let mut connections = Vec::new();
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                connection.read_exact(&mut [0; 8]).await.unwrap();
                connection.write_all(answer).await.unwrap();
                connections.push(connection);
            }
        });
        self
    }

    /// Nothing listens there.
    fn refusing(&mut self) -> &mut Self {
        self.address();
        self
    }

    /// The kernel drops each SYN, since the queue of connections that wait to be accepted is full.
    async fn dropping(&mut self) -> &mut Self {
        let socket = TcpSocket::new_v4().unwrap();
        let address = self.address();
        socket.bind(address).unwrap();
        self.full.push(socket.listen(0).unwrap());
        while let Ok(connection) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            self.waiting.push(connection.unwrap());
        }
        self
    }

    fn broker(&self, options: BrokerOptions) -> Broker {
        let addresses = self.addresses.clone();
        let options = BrokerOptions { host: "rabbit".into(), port: Some(Port(self.port)), ..options };
        let found = move |host: &str| match host {
            "rabbit" => Ok(addresses.clone()),
            other => Err(io::Error::other(format!("{other} is unknown"))),
        };
        Broker::with_resolver(options, |threads| Resolver::new(threads, found)).unwrap()
    }
}

async fn reach(broker: &Broker, limit: Duration) -> Result<SocketAddr, ConnectError> {
    let route = Route { broker, limit, deadline: Instant::now() + limit, suspect: None };
    route.to_any(&broker.options().nodes(), 0).await.map(|arrival| arrival.address)
}

#[tokio::test]
async fn addresses_that_drop_packets_refuse_or_stay_silent_do_not_keep_a_client_from_the_one_that_greets() {
    let mut servers = Servers::new().await;
    servers.dropping().await.answering(b"").await.refusing().answering(FRAME).await;
    let broker = servers.broker(BrokerOptions::default());
    let begun = Instant::now();
    assert_eq!(reach(&broker, LIMIT).await.unwrap(), servers.addresses[3]);
    // Two of them have a head start.
    assert!(begun.elapsed() >= HEAD_START * 2 && begun.elapsed() < LIMIT / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn many_silent_addresses_share_the_time_there_is() {
    let mut servers = Servers::new().await;
    for _ in 0..9 {
        servers.answering(b"").await;
    }
    servers.answering(FRAME).await;
    let broker = servers.broker(BrokerOptions::default());
    assert_eq!(reach(&broker, Duration::from_secs(1)).await.unwrap(), servers.addresses[9]);
}

#[tokio::test]
async fn an_error_names_each_address_and_what_waits_for_an_operator_comes_first() {
    let mut silent = Servers::new().await;
    silent.answering(b"").await.answering(b"").await;
    let limit = Duration::from_millis(200);
    let port = silent.port;
    let text = reach(&silent.broker(BrokerOptions::default()), limit).await.unwrap_err().to_string();
    let both = format!("rabbit:{port} (127.0.7.1), rabbit:{port} (127.0.7.2)");
    assert_eq!(text, format!("RabbitMQ at {both} did not answer within 200ms while connecting"));

    silent.refusing();
    let text = reach(&silent.broker(BrokerOptions::default()), limit).await.unwrap_err().to_string();
    let refused = format!("rabbit:{port} (127.0.7.3): Connection refused");
    assert!(text.starts_with("cannot reach RabbitMQ at ") && text.contains(&refused), "{text}");
    assert!(text.contains(&format!("rabbit:{port} (127.0.7.1): no answer within 200ms while connecting; ")), "{text}");

    silent.answering(b"HTTP/1.1 400 Bad Request\r\n").await;
    let error = reach(&silent.broker(BrokerOptions::default()), limit).await.unwrap_err();
    assert!(error.is_fatal(), "{error}");
    let words = format!("no RabbitMQ at rabbit:{port} (127.0.7.4): it is an HTTP server");
    assert!(error.to_string().starts_with(&words), "{error}");

    // Another node may come back by itself.
    let hosts = vec![HostOptions { host: "away".into(), port: Some(Port(1)) }];
    let error = reach(&silent.broker(BrokerOptions { hosts, ..BrokerOptions::default() }), limit).await.unwrap_err();
    assert!(!error.is_fatal(), "{error}");
    assert!(error.to_string().contains("HTTP server") && error.to_string().contains("away is unknown"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_behind_a_name_with_silent_addresses_is_connected_to() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    let mut servers = Servers::at(vhost.port);
    servers.dropping().await.answering(b"").await;
    // It greets, and then it is silent: the next attempt begins elsewhere.
    servers.answering(FRAME).await;
    servers.addresses.push(([127, 0, 0, 1], vhost.port).into());
    let broker = servers.broker(BrokerOptions {
        name: vhost.user.clone(),
        password: vhost.password.as_str().into(),
        vhost: vhost.name.clone(),
        connect_timeout: Duration::from_secs(2),
        ..BrokerOptions::default()
    });
    let pool = ConnectionPool::new(&broker, Role::Operator, "several addresses");
    let first = pool.get().await.map(drop);
    assert!(matches!(first, Err(ConnectError::Silent { .. })), "{first:?}");
    let connection = pool.get().await.unwrap();
    assert!(connection.status().connected());
    pool.close_one(connection, LIMIT).await;
}
