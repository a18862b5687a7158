use std::time::Duration;

use jm_testkit::{QueueCounts, RabbitNode};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind};

const SOON: Duration = Duration::from_secs(5);

fn plain() -> BasicProperties {
    BasicProperties::default()
}

/// Waits until a channel has noticed that its connection is gone.
pub(crate) async fn closed(channel: &lapin::Channel) {
    let noticed = async {
        while channel.status().connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, noticed).await.expect("the channel is still open");
}

#[tokio::test]
async fn virtual_hosts_are_separate() {
    let node = RabbitNode::shared().await.unwrap();
    let (one, other) = (node.vhost().await.unwrap(), node.vhost().await.unwrap());
    assert_ne!(one.name, other.name);
    one.declare_queue("tasks").await.unwrap();
    assert!(one.queue_exists("tasks").await.unwrap());
    assert!(!other.queue_exists("tasks").await.unwrap());
    let foreign = one.uri().replace(&one.name.replace('-', "%2D"), "nobody");
    assert!(Connection::connect(&foreign, ConnectionProperties::default()).await.is_err());
}

#[tokio::test]
async fn names_and_passwords_of_any_characters_work() {
    let node = RabbitNode::shared().await.unwrap();
    let vhost = node.vhost_named("a/b@c:%é \"'\\", "us:er@/%\"", "p@ss:/w%ö\\\"'rd?#").await.unwrap();
    let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap();
    vhost.declare_queue("qu\"eue>>, é").await.unwrap();
    assert!(vhost.queue_exists("qu\"eue>>, é").await.unwrap());
}

#[tokio::test]
async fn counts_of_classic_and_quorum_queues_are_exact_at_once() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    vhost.declare_queue("classic").await.unwrap();
    vhost.declare_queue_with("quorum", true, quorum).await.unwrap();
    for queue in ["classic", "quorum"] {
        let messages = (0..1_200).map(|number| (plain(), format!("message {number}")));
        assert_eq!(vhost.publish_many(queue, messages).await.unwrap(), 1_200);
        assert_eq!(vhost.queue_counts(queue).await.unwrap(), QueueCounts { ready: 1_200, unacked: 0, consumers: 0 });

        let channel = vhost.channel().await.unwrap();
        channel.basic_qos(10, lapin::options::BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
        let busy = QueueCounts { ready: 1_190, unacked: 10, consumers: 1 };
        vhost.wait_for_counts(queue, SOON, |counts| *counts == busy).await.unwrap();
        drop(consumer);
        drop(channel);

        vhost.wait_for_counts(queue, SOON, |counts| counts.unacked == 0 && counts.consumers == 0).await.unwrap();
        let taken = vhost.take_all(queue).await.unwrap();
        assert_eq!(taken.len(), 1_200);
        assert_eq!(taken[1_199].data, b"message 1199");
        assert!(vhost.queue_counts(queue).await.unwrap().is_empty());
    }
    let error = vhost.wait_for_counts("classic", Duration::from_secs(2), |counts| counts.ready == 7).await;
    assert!(format!("{:#}", error.unwrap_err()).contains("ready: 0"));
    assert!(vhost.queue_counts("none").await.is_err());
}

#[tokio::test]
async fn queues_exchanges_and_bindings_are_taken_away() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.declare_exchange("events", ExchangeKind::Topic).await.unwrap();
    vhost.bind("tasks", "events", "a.#").await.unwrap();
    let channel = vhost.channel().await.unwrap();
    let publish = async || {
        let options = BasicPublishOptions::default();
        channel.basic_publish("events".into(), "a.b".into(), options, b"x", plain()).await.unwrap().await.unwrap();
        // The same channel, so that the broker has routed what was published before.
        channel.basic_get("tasks".into(), BasicGetOptions { no_ack: true }).await.unwrap()
    };
    assert!(publish().await.is_some());
    vhost.unbind("tasks", "events", "a.#").await.unwrap();
    assert!(publish().await.is_none());
    vhost.delete_exchange("events").await.unwrap();

    vhost.publish("tasks", plain(), b"x").await.unwrap();
    assert_eq!(vhost.purge_queue("tasks").await.unwrap(), 1);
    vhost.delete_queue("tasks").await.unwrap();
    assert!(!vhost.queue_exists("tasks").await.unwrap());
    let error = vhost.publish("tasks", plain(), b"x").await.unwrap_err();
    assert!(format!("{error:#}").contains("\"tasks\""), "{error:#}");
}

#[tokio::test]
async fn a_policy_is_in_effect_when_set_and_gone_when_cleared() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.set_policy("short", "^tasks$", r#"{"max-length": 1, "overflow": "reject-publish"}"#).await.unwrap();
    vhost.publish("tasks", plain(), b"1").await.unwrap();
    let refused = vhost.publish("tasks", plain(), b"2").await.unwrap_err();
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
    vhost.clear_policy("short").await.unwrap();
    vhost.publish("tasks", plain(), b"3").await.unwrap();
    let error = vhost.set_policy("wrong", "x", r#"{"no-such-key": 1}"#).await.unwrap_err();
    assert!(format!("{error:#}").contains("no-such-key"), "{error:#}");
}

#[tokio::test]
async fn permissions_users_and_passwords_change_and_the_kit_still_sees_the_virtual_host() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.clear_permissions(&vhost.user).await.unwrap();
    assert!(vhost.channel().await.is_err());
    vhost.set_permissions(&vhost.user, "", ".*", "").await.unwrap();
    let channel = vhost.channel().await.unwrap();
    assert!(channel.basic_get("tasks".into(), BasicGetOptions::default()).await.is_err(), "reading is not permitted");
    vhost.publish("tasks", plain(), b"x").await.unwrap();
    assert_eq!(vhost.take_all("tasks").await.unwrap().len(), 1);

    vhost.change_password(&vhost.user, "another").await.unwrap();
    assert!(vhost.channel().await.is_err());
    let mut same = vhost.clone();
    same.password = "another".to_owned();
    same.channel().await.unwrap();

    let user = format!("{}-second", vhost.name);
    vhost.add_user(&user, "secret").await.unwrap();
    vhost.set_permissions(&user, ".*", ".*", ".*").await.unwrap();
    same.user = user;
    same.password = "secret".to_owned();
    same.channel().await.unwrap();
}

#[tokio::test]
async fn a_deleted_virtual_host_is_gone_and_comes_back_empty() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.delete().await.unwrap();
    assert!(vhost.channel().await.is_err());
    vhost.create().await.unwrap();
    assert!(!vhost.queue_exists("tasks").await.unwrap());
    vhost.channel().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.publish("tasks", plain(), b"x").await.unwrap();
}

#[tokio::test]
async fn closing_the_connections_of_a_virtual_host_spares_the_kit_and_other_virtual_hosts() {
    let node = RabbitNode::shared().await.unwrap();
    let (vhost, other) = (node.vhost().await.unwrap(), node.vhost().await.unwrap());
    let connect = async |uri: String| {
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    };
    let (_mine, mine) = connect(vhost.uri()).await;
    let (_theirs, theirs) = connect(other.uri()).await;
    let ours = vhost.channel().await.unwrap();
    vhost.declare_queue("tasks").await.unwrap();
    vhost.publish("tasks", plain(), b"x").await.unwrap();
    assert_eq!(vhost.close_connections("fault injection").await.unwrap(), 1);

    let get = BasicGetOptions::default();
    closed(&mine).await;
    assert!(node.log().unwrap().contains("fault injection"));
    let message = ours.basic_get("tasks".into(), get).await.unwrap().unwrap();
    assert!(message.ack(BasicAckOptions::default()).await.unwrap());
    assert!(theirs.status().connected());
    assert!(vhost.take_all("tasks").await.unwrap().is_empty());
}
