//! Databases that are locked, lost, or restarted: faults 19.

use std::time::{Duration, Instant};

use jm_mq_core::{Answers, Payload};
use jm_testkit::PostgresServer;
use record_event_worker::PipelineOptions;
use serde::Serialize;

use crate::support::{Database, Worker, created, cx, id, limited, tasks, text_content, updated};

on_both!(a_lock_held_too_long_fails_the_attempt_and_the_next_one_succeeds, a_cancelled_run_stores_nothing);

async fn a_lock_held_too_long_fails_the_attempt_and_the_next_one_succeeds(mut database: Database) {
    database.options.lock_timeout = Duration::from_millis(300);
    let worker = database.worker().await;
    worker.takes(&created("r", 1, text_content("one"))).await;
    let before = database.rows().await;

    let mut other = database.connect().await;
    let lock = if database.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN; SELECT 1 FROM records FOR UPDATE" };
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let event = updated("r", 2, text_content("two"));
    let begin = Instant::now();
    let error = worker.tries(&event, &cx()).await.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(250), "it did not wait: {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5), "it waited too long: {:?}", begin.elapsed());
    assert!(!error.is_permanent() && error.to_string().contains("lock"), "{error}");
    // Readers are not in anybody's way.
    assert_eq!(database.rows().await, before);
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

    assert_eq!(tasks(&worker.tries(&event, &cx().with_attempt(2)).await.unwrap()).len(), 2);
    assert_eq!(worker.store.record(&id("r")).await.unwrap().unwrap().revision, Some(2));
}

async fn a_cancelled_run_stores_nothing(mut database: Database) {
    database.options.lock_timeout = Duration::from_secs(30);
    let worker = database.worker().await;
    worker.takes(&created("r", 1, text_content("one"))).await;
    let mut other = database.connect().await;
    let lock = if database.is_sqlite() { "BEGIN IMMEDIATE" } else { "BEGIN; SELECT 1 FROM records FOR UPDATE" };
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let event = updated("r", 2, text_content("two"));
    // As `handler_timeout` does it: the run is dropped while it waits for the lock.
    let context = cx();
    assert!(tokio::time::timeout(Duration::from_millis(200), worker.tries(&event, &context)).await.is_err());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

    let after = created("another", 1, text_content("t"));
    assert_eq!(tasks(&worker.tries(&after, &cx()).await.unwrap()).len(), 2);
    assert_eq!(worker.store.record(&id("r")).await.unwrap().unwrap().revision, Some(1));
    assert_eq!(tasks(&worker.tries(&event, &cx().with_attempt(2)).await.unwrap()).len(), 2);
}

/// The consumer's retries, with a limit. Returns the answers, and how many attempts failed before.
async fn until_it_succeeds<T: Payload + Serialize>(worker: &Worker, event: &T) -> (Answers, u32) {
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut failed = 0;
    loop {
        match worker.tries(event, &cx().with_attempt(failed + 1)).await {
            Ok(answers) => return (answers, failed),
            Err(error) => {
                assert!(!error.is_permanent(), "{error}");
                assert!(Instant::now() < deadline, "{error}");
            }
        }
        failed += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_was_restarted_between_events_costs_no_restart_of_ours() {
    limited(async {
        let server = PostgresServer::start().await.unwrap();
        let database = Database::postgres_on(&server).await;
        let worker = database.worker().await;
        worker.takes(&created("r", 1, text_content("one"))).await;
        server.kill().await.unwrap();
        let event = updated("r", 2, text_content("two"));
        // A refused connection is an error at once or after the pool's limit, and not a permanent one.
        let error = worker.tries(&event, &cx()).await.unwrap_err();
        assert!(!error.is_permanent(), "{error}");
        server.restart().await.unwrap();
        let (answers, _) = until_it_succeeds(&worker, &event).await;
        assert_eq!(tasks(&answers).len(), 2);
        let view = worker.store.record(&id("r")).await.unwrap().unwrap();
        assert_eq!((view.revision, view.content), (Some(2), Some(text_content("two"))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_crashes_in_the_middle_of_events_loses_none_and_halves_none() {
    limited(async {
        let server = PostgresServer::start().await.unwrap();
        let database = Database::postgres_on(&server).await;
        let worker = std::sync::Arc::new(database.worker_with(PipelineOptions::default()).await);
        let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let mut runs = Vec::new();
        for run in 0..4 {
            let (worker, done) = (std::sync::Arc::clone(&worker), done.clone());
            runs.push(tokio::spawn(async move {
                let mut failures = 0;
                for number in 0..100 {
                    let event = created(&format!("r{run}-{number:03}"), 1, text_content("t"));
                    let (answers, failed) = until_it_succeeds(&worker, &event).await;
                    // Also when the commit succeeded and only its answer was lost.
                    assert_eq!(tasks(&answers).len(), 2);
                    failures += failed;
                    done.send(()).unwrap();
                }
                failures
            }));
        }
        for _ in 0..40 {
            finished.recv().await.unwrap();
        }
        server.restart().await.unwrap();
        let mut failures = 0;
        for run in runs {
            failures += run.await.unwrap();
        }
        assert!(failures > 0, "the crash hit nobody");
        let rows = database.rows().await;
        for (table, count) in [("record|", 400), ("result|", 0), ("task|", 800)] {
            assert_eq!(rows.iter().filter(|row| row.starts_with(table)).count(), count, "{table}");
        }
    })
    .await;
}
