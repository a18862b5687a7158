//! No secret in anything that comes out of the worker, whatever goes wrong.

use std::time::Duration;

use jm_tasks::queue;
use jm_testkit::{Canary, FaultCourse, LeakSearch, PostgresServer, Subject};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::{LIMIT, configured, tell};

fn subject(database: String, password: &Canary) -> Subject {
    Subject {
        program: env!("CARGO_BIN_EXE_record-event-worker").into(),
        queue: queue::RECORD_EVENTS,
        kind: "record.created",
        task: json!({ "record_id": "r-1", "content": { "text": "A note." } }),
        answers: queue::EMBED,
        engine: None,
        fetches: false,
        settings: vec![("JM_DATABASE__URL", database)],
        secrets: vec![password.clone()],
    }
}

fn encoded(secret: &Canary) -> String {
    utf8_percent_encode(secret.value(), NON_ALPHANUMERIC).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_broker_or_database_brings_a_secret_to_light() {
    let password = Canary::new("the database's password");
    let server = PostgresServer::start().await.unwrap();
    let role = format!("CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{}'", password.value());
    server.sql("postgres", &role).await.unwrap();
    let database = format!("postgres://canary:{}@127.0.0.1:{}/postgres", encoded(&password), server.port());
    let mut course = FaultCourse::of(subject(database, &password)).await.unwrap();
    let vhost = course.vhost().clone();
    let event = |id: &str| json!({ "record_id": id, "content": { "text": "A note." } });
    course.command_line().await.unwrap();
    let worker = course.start().await.unwrap();
    course.work(&worker).await.unwrap();
    course.wrong_messages(&worker).await.unwrap();
    course.broker_faults(&worker).await.unwrap();

    server.kill().await.unwrap();
    tell(&vhost, "record.created", event("r-2")).await;
    course.take_dead("an event without its database").await.unwrap();
    server.restart().await.unwrap();
    server.sql("postgres", "ALTER ROLE canary PASSWORD 'another'").await.unwrap();
    tell(&vhost, "record.created", event("r-3")).await;
    course.take_dead("an event whose database refuses").await.unwrap();
    course.end(worker).await.unwrap();

    // A start that the database refuses.
    let worker = course.worker().start().await.unwrap();
    worker.wait_for_log("trying again", LIMIT).await.unwrap();
    course.end(worker).await.unwrap();
    assert_eq!(course.finish().unwrap().leaks(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mistake_in_the_configuration_brings_a_secret_to_light() {
    let secret = Canary::new("the database's password");
    let database = format!("postgres://canary:{}@127.0.0.1:9/records", encoded(&secret));
    let search = subject(database, &secret).mistakes().await.unwrap();
    assert_eq!(search.leaks(), []);

    let mut search = LeakSearch::of([secret.clone()]);
    for url in [
        format!("mysql://u:{}@host/records", encoded(&secret)),
        format!("postgres://u:{}@/", encoded(&secret)),
        format!("postgres://u:{}@host/db", secret.value()),
        secret.value().to_owned(),
    ] {
        // One that can be read is waited for.
        let output = configured().env("JM_DATABASE__URL", &url).output(Duration::from_secs(5)).await;
        let Ok(output) = output else { continue };
        search.output("a wrong database", &output);
    }
    assert_eq!(search.leaks(), []);
}
