//! Faults of a whole node, on one of their own, one after another.

use std::time::Duration;

use jm_testkit::{RabbitNode, TcpProxy};
use lapin::options::BasicGetOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::time::timeout;

use super::vhost::closed;

#[tokio::test]
async fn a_node_is_frozen_alarmed_and_stripped_of_its_connections_and_recovers_from_each() {
    let node = RabbitNode::start().await.unwrap();
    let vhost = node.vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    let channel = vhost.channel().await.unwrap();

    // Frozen: connections stay open, nobody answers.
    node.freeze().unwrap();
    let get = channel.basic_get("tasks".into(), BasicGetOptions { no_ack: true });
    tokio::pin!(get);
    assert!(timeout(Duration::from_millis(300), &mut get).await.is_err(), "a frozen node answered");
    node.thaw().unwrap();
    assert!(timeout(Duration::from_secs(5), get).await.unwrap().unwrap().is_none());

    // In an alarm a publish is not confirmed, and arrives when it is over.
    for memory in [true, false] {
        let alarm = async |on| if memory { node.memory_alarm(on).await } else { node.disk_alarm(on).await };
        alarm(true).await.unwrap();
        let publish = vhost.publish("tasks", BasicProperties::default(), b"x");
        tokio::pin!(publish);
        assert!(timeout(Duration::from_millis(300), &mut publish).await.is_err(), "published in an alarm");
        // Looking works in an alarm.
        assert_eq!(vhost.queue_counts("tasks").await.unwrap().ready, 0);
        assert!(vhost.take_all("tasks").await.unwrap().is_empty());
        alarm(false).await.unwrap();
        timeout(Duration::from_secs(5), publish).await.unwrap().unwrap();
        assert_eq!(vhost.take_all("tasks").await.unwrap().len(), 1);
    }

    // A client that sees the close half a second late.
    let proxy = TcpProxy::start(([127, 0, 0, 1], node.port()).into()).await.unwrap();
    let client = Connection::connect(&vhost.uri_at(proxy.port()), ConnectionProperties::default()).await.unwrap();
    let open = client.create_channel().await.unwrap();
    proxy.delay(Some(Duration::from_millis(500)));
    assert_eq!(node.connection_count().await.unwrap(), 4, "two of the kit, `channel`, `client`");
    node.close_all_connections("all of them").await.unwrap();
    assert_eq!(node.connection_count().await.unwrap(), 0, "each client has seen it, the kit too");
    vhost.declare_queue("more").await.unwrap();
    closed(&open).await;
    closed(&channel).await;
    assert!(node.log().unwrap().contains("all of them"));
}
