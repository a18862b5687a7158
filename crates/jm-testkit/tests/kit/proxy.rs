use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use jm_testkit::{RabbitNode, TcpProxy};
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
const SHORTLY: Duration = Duration::from_millis(200);

/// A server, a proxy before it, and one connection through: client's end, server's end.
struct Through {
    listener: TcpListener,
    proxy: TcpProxy,
}

impl Through {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = TcpProxy::start(listener.local_addr().unwrap()).await.unwrap();
        Self { listener, proxy }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.proxy.port())).await.unwrap();
        let (server, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        (client, server)
    }
}

async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn end(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    timeout(SOON, stream.read(&mut [0; 16])).await.unwrap().map_err(|error| error.kind())
}

async fn silent(stream: &mut TcpStream) -> bool {
    timeout(SHORTLY, stream.read(&mut [0; 16])).await.is_err()
}

#[tokio::test]
async fn a_proxy_forwards_both_ways_and_an_end_of_stream_each_way() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    let big: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let (sent, got) = tokio::join!(client.write_all(&big), read(&mut server, big.len()));
    sent.unwrap();
    assert!(got == big);
    client.shutdown().await.unwrap();
    assert_eq!(end(&mut server).await, Ok(0));
    server.write_all(b"late").await.unwrap();
    assert_eq!(read(&mut client, 4).await, b"late");
    assert_eq!((through.proxy.connections(), through.proxy.accepted()), (1, 1));
    drop(server);
    assert_eq!(end(&mut client).await, Ok(0));
}

#[tokio::test]
async fn a_cut_is_an_end_of_stream_and_a_reset_is_an_error_on_both_sides() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    through.proxy.cut();
    assert_eq!(through.proxy.connections(), 0);
    assert_eq!(end(&mut client).await, Ok(0));
    assert_eq!(end(&mut server).await, Ok(0));

    let (mut client, mut server) = through.connect().await;
    through.proxy.reset();
    assert_eq!(through.proxy.connections(), 0);
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut server).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_refusing_proxy_refuses_new_connections_and_keeps_present_ones() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    for _ in 0..3 {
        through.proxy.refuse(true);
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, through.proxy.port())).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        client.write_all(b"still").await.unwrap();
        assert_eq!(read(&mut server, 5).await, b"still");
        through.proxy.refuse(false);
        through.connect().await;
    }
    // What nobody listens for upstream is reset.
    let nowhere: SocketAddr = through.listener.local_addr().unwrap();
    drop(through.listener);
    let proxy = TcpProxy::start(nowhere).await.unwrap();
    // The reset may be there before the connection is.
    let ended = match TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await {
        Ok(mut client) => end(&mut client).await,
        Err(error) => Err(error.kind()),
    };
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_swallowing_proxy_is_silent_and_resets_what_lost_bytes_when_it_ends() {
    let through = Through::new().await;
    let (mut lossy, mut lossy_server) = through.connect().await;
    let (mut whole, mut whole_server) = through.connect().await;
    through.proxy.swallow(true);
    lossy.write_all(b"lost").await.unwrap();
    assert!(silent(&mut lossy_server).await);
    assert!(silent(&mut lossy).await);
    let (mut fresh, _fresh_server) = through.connect().await;
    assert!(silent(&mut fresh).await);
    through.proxy.heal();
    assert_eq!(end(&mut lossy).await, Err(ErrorKind::ConnectionReset));
    whole.write_all(b"kept").await.unwrap();
    assert_eq!(read(&mut whole_server, 4).await, b"kept");
}

#[tokio::test]
async fn a_stalled_proxy_holds_bytes_and_loses_none() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    through.proxy.stall(true);
    client.write_all(b"held").await.unwrap();
    assert!(silent(&mut server).await);
    through.proxy.stall(false);
    assert_eq!(read(&mut server, 4).await, b"held");
}

#[tokio::test]
async fn a_delay_is_added_in_each_direction() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    through.proxy.delay(Some(Duration::from_millis(100)));
    let begin = Instant::now();
    client.write_all(b"there").await.unwrap();
    read(&mut server, 5).await;
    assert!(begin.elapsed() >= Duration::from_millis(100));
    server.write_all(b"back").await.unwrap();
    read(&mut client, 4).await;
    assert!(begin.elapsed() >= Duration::from_millis(200));
    through.proxy.delay(None);
}

#[tokio::test]
async fn slices_arrive_one_by_one_and_a_broker_puts_them_together() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    through.proxy.slice(Some(3));
    client.write_all(b"abcdefgh").await.unwrap();
    let mut first = [0; 16];
    let count = timeout(SOON, server.read(&mut first)).await.unwrap().unwrap();
    assert_eq!(count, 3);
    assert_eq!(read(&mut server, 5).await, b"defgh");

    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    let proxy = TcpProxy::start((Ipv4Addr::LOCALHOST, vhost.port).into()).await.unwrap();
    proxy.slice(Some(7));
    let uri = vhost.uri_at(proxy.port());
    let connection = timeout(SOON, Connection::connect(&uri, ConnectionProperties::default())).await.unwrap().unwrap();
    timeout(SOON, connection.create_channel()).await.unwrap().unwrap();
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_reset_comes_after_exactly_so_many_bytes_to_the_server() {
    let through = Through::new().await;
    let (mut client, mut server) = through.connect().await;
    let (mut other, _other_server) = through.connect().await;
    through.proxy.reset_after(5);
    server.write_all(b"does not count").await.unwrap();
    read(&mut client, 14).await;
    client.write_all(b"abc").await.unwrap();
    assert_eq!(read(&mut server, 3).await, b"abc");
    client.write_all(b"defgh").await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(SOON, server.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(rest, b"de");
    assert_eq!(end(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&mut other).await, Err(ErrorKind::ConnectionReset));
    let (mut client, mut server) = through.connect().await;
    client.write_all(b"as before").await.unwrap();
    assert_eq!(read(&mut server, 9).await, b"as before");
}
