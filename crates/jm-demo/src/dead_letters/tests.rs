//! Dead letters that nobody's worker has given up.

use std::time::Duration;

use jm_testkit::{RabbitNode, Vhost};
use lapin::{BasicProperties, ConnectionProperties};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

async fn dead_queues() -> (Vhost, Connection) {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    for kind in Kind::ALL {
        vhost.declare_queue(&format!("{}.dead", kind.queue())).await.unwrap();
    }
    let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default()).await.unwrap();
    (vhost, connection)
}

/// What `llm-worker` gives up of these records.
async fn give_up(vhost: &Vhost, records: impl Iterator<Item = String>) {
    let mut headers = FieldTable::default();
    headers.insert("jm-error-kind".into(), AMQPValue::LongString("permanent".into()));
    headers.insert("x-exception-message".into(), AMQPValue::LongString("text:\n\u{1b}[2Jempty".into()));
    let properties = BasicProperties::default().with_type("llm.summarize".into()).with_headers(headers);
    let letters = records.map(|record| (properties.clone(), format!(r#"{{"record_id":"{record}"}}"#)));
    vhost.publish_many("jm.llm.dead", letters).await.unwrap();
}

fn nothing_is_told(line: &str) {
    panic!("{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_letter_is_found_behind_thousands_of_old_ones_and_all_are_left_there() {
    let (vhost, connection) = dead_queues().await;
    let mut dead_letters = DeadLetters::new(&connection);
    assert_eq!(dead_letters.look(nothing_is_told).await.unwrap(), []);
    give_up(&vhost, (0..2500).map(|number| format!("old-{number}"))).await;
    give_up(&vhost, ["new".to_owned()].into_iter()).await;
    let letters = dead_letters.look(nothing_is_told).await.unwrap();
    assert_eq!(letters.len(), 2501);
    let new = DeadLetter {
        record: Some(RecordId::new("new").unwrap()),
        stage: Some(Stage::Summary),
        worker: Kind::Llm,
        kind: "permanent".into(),
        reason: "text: [2Jempty".into(),
    };
    assert_eq!(letters.last(), Some(&new));
    // Only then are they counted as before.
    vhost.wait_for_counts("jm.llm.dead", LIMIT, |counts| counts.ready == 2501 && counts.unacked == 0).await.unwrap();
    assert!(dead_letters.look(nothing_is_told).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_beyond_the_limit_are_said_once() {
    let (vhost, connection) = dead_queues().await;
    give_up(&vhost, ["one", "two", "three"].map(str::to_owned).into_iter()).await;
    let mut dead_letters = DeadLetters { most: 2, ..DeadLetters::new(&connection) };
    let mut said = Vec::new();
    let letters = dead_letters.look(|line| said.push(line.to_owned())).await.unwrap();
    let records: Vec<String> = letters.into_iter().filter_map(|letter| Some(letter.record?.to_string())).collect();
    assert_eq!(records, ["one", "two"]);
    give_up(&vhost, ["four".to_owned()].into_iter()).await;
    dead_letters.look(|line| said.push(line.to_owned())).await.unwrap();
    assert_eq!(said, ["jm.llm.dead keeps 3 messages: a new one is not seen behind the first 2; purge it"]);
}
