//! The workers' users of the Kubernetes manifests, each on a real broker: what a worker does with its queue, and nothing else.

use jm_mq_core::{
    Answers, Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Message, Outgoing, Port,
    Publisher, PublisherOptions, Router, Topology,
};
use jm_testkit::Vhost;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};

use crate::{dead_letters::said, rights, support::jm_at};

const PASSWORD: &str = "workers-own";
const EVENTS: &str = "jm.coreRecordEvent";

/// The workers, each with its queue and where its answers go.
const WORKERS: [(&str, &str, &[&str]); 5] = [
    ("llm-worker", "jm.llm", &[EVENTS]),
    ("asr-worker", "jm.asr", &[EVENTS]),
    ("sd-worker", "jm.sd", &[EVENTS]),
    ("embed-worker", "jm.embed", &[EVENTS]),
    ("record-event-worker", EVENTS, &["jm.llm", "jm.asr", "jm.sd", "jm.embed"]),
];

/// All that a worker does: it declares, consumes, answers, replies to a queue of the requester's, and dead-letters.
async fn work(vhost: &Vhost, user: &str, queue: &str, answers: &'static [&'static str]) {
    let options = BrokerOptions {
        port: Some(Port(vhost.port)),
        name: user.into(),
        password: PASSWORD.into(),
        vhost: vhost.name.clone(),
        ..BrokerOptions::default()
    };
    let broker = Broker::new(options).unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let router = Router::new().on_type("task", move |task: Value, cx: Context| async move {
        if task["fails"] == true {
            return Err(HandlerError::permanent("it cannot be done"));
        }
        let answer = |to: &&str| Outgoing::new(*to, *to, Message::new("answer", "{}"));
        let answers: Vec<Outgoing> = answers.iter().map(answer).collect();
        Ok(Answers::from(answers).and_reply(&cx, Message::new("reply", "{}")))
    });
    let topology = Topology::work_queue(queue);
    let mut consumer = Consumer::new(&broker, &publisher, topology, ConsumerOptions::default(), router).unwrap();
    for to in answers {
        consumer = consumer.answering_to(Topology::work_queue(to)).unwrap();
    }
    let running = consumer.start();
    tokio::time::timeout(rights::LIMIT, running.ready()).await.unwrap();
    let replies = format!("replies-to-{user}");
    vhost.declare_queue(&replies).await.unwrap();
    vhost.send(queue, "task", "1", Some(&replies), &json!({})).await.unwrap();
    vhost.send(queue, "task", "2", None, &json!({ "fails": true })).await.unwrap();
    vhost.receive(&replies, 1, rights::LIMIT).await.unwrap();
    for to in answers {
        vhost.receive(to, 1, rights::LIMIT).await.unwrap();
    }
    vhost.receive(&format!("{queue}.dead"), 1, rights::LIMIT).await.unwrap();
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_workers_user_in_kubernetes_does_its_work_and_touches_no_other_queue() {
    let (node, _) = rights::cluster().await;
    let vhost = node.vhost().await.unwrap();
    let applied = said(jm_at(&vhost), ["topology", "apply"]).await;
    assert_eq!(applied.code, 0, "{applied:?}");
    for (user, queue, answers) in WORKERS {
        let [configure, write, read] = &rights::of_manifests(&format!("{user}.yaml"))[user];
        vhost.add_user(user, PASSWORD).await.unwrap();
        vhost.set_permissions(user, configure, write, read).await.unwrap();
        work(&vhost, user, queue, answers).await;

        let uri = format!("amqp://{user}:{PASSWORD}@127.0.0.1:{}/{}", vhost.port, vhost.name);
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
        let channel = || async { connection.create_channel().await.unwrap() };
        for own in [queue.to_owned(), format!("{queue}.dead")] {
            // The gauges of the backlog.
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel().await.queue_declare(own.into(), passive, FieldTable::default()).await.unwrap();
        }
        for (_, other, _) in WORKERS.iter().filter(|(_, other, _)| *other != queue) {
            let dead = format!("{other}.dead");
            // It declares where its answers go, with the binding: RabbitMQ asks for the right to read the exchange, and the
            // queue has the same name.
            let foreign = if answers.contains(other) { vec![dead.as_str()] } else { vec![*other, dead.as_str()] };
            for name in foreign {
                for act in [Act::Take, Act::Consume, Act::Delete] {
                    refused(channel().await, name, act).await;
                }
            }
            if !answers.contains(other) {
                refused(channel().await, other, Act::Publish).await;
            }
        }
        // Its own dead letters are the operators'.
        refused(channel().await, &format!("{queue}.dead"), Act::Take).await;
        refused(channel().await, "amq.topic", Act::Publish).await;
        refused(channel().await, "anything", Act::Declare).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    Consume,
    Delete,
    Publish,
    Declare,
}

async fn refused(channel: Channel, name: &str, act: Act) {
    let (key, none) = (name.into(), FieldTable::default());
    let done = match act {
        Act::Take => channel.basic_get(key, BasicGetOptions::default()).await.map(drop),
        Act::Consume => channel.basic_consume(key, "".into(), BasicConsumeOptions::default(), none).await.map(drop),
        Act::Delete => channel.queue_delete(key, QueueDeleteOptions::default()).await.map(drop),
        Act::Declare => channel.queue_declare(key, QueueDeclareOptions::default(), none).await.map(drop),
        Act::Publish => {
            async {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                let options = BasicPublishOptions::default();
                channel.basic_publish(key, "".into(), options, b"", BasicProperties::default()).await?.await.map(drop)
            }
            .await
        }
    };
    let Err(error) = done else { panic!("{act:?} of {name} was allowed") };
    let error = error.to_string();
    assert!(error.contains("ACCESS_REFUSED"), "{act:?} of {name}: {error}");
}
