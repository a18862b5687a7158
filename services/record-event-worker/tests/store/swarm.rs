//! Many events, thrice each, in any order, many at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use jm_mq_core::Payload;
use jm_tasks::{LlmTask, follow_up_id};
use record_event_worker::PipelineOptions;
use serde::Serialize;

use crate::support::{
    Database, audio_content, completed, created, cx, deleted, diarized, embedded, id, limited, stage_of, summarized,
    tasks, text_content, transcribed, updated,
};

/// Deliveries under way at a time.
const CONCURRENCY: usize = 16;

type Event = (&'static str, Bytes);

fn event<T: Payload + Serialize>(payload: &T) -> Event {
    (T::TYPE, serde_json::to_vec(payload).unwrap().into())
}

/// A record's life as it happened: created, updated twice, with the results of each revision; every fourth deleted.
fn life(number: usize) -> Vec<Event> {
    let record = format!("r{number:04}");
    let is_audio = number.is_multiple_of(2);
    let mut life = Vec::new();
    for revision in 1..=3 {
        let content = if is_audio { audio_content() } else { text_content(&format!("text {number} at {revision}")) };
        life.push(match revision {
            1 => event(&created(&record, revision, content)),
            _ => event(&updated(&record, revision, content)),
        });
        if is_audio {
            life.push(event(&diarized(&record, revision)));
            life.push(event(&transcribed(&record, revision, &format!("said {number} at {revision}"))));
        }
        // Some of the newest work is still under way.
        if revision < 3 || !number.is_multiple_of(3) {
            life.push(event(&summarized(&record, revision)));
        }
        if revision < 3 || !number.is_multiple_of(5) {
            life.push(event(&embedded(&record, revision)));
        }
        life.push(event(&completed(&record, revision, LlmTask::Title, "title")));
    }
    match number % 12 {
        0 => life.push(event(&deleted(&record, None))),
        4 => life.push(event(&deleted(&record, Some(3)))),
        // What had been deleted was updated since.
        8 => life.push(event(&deleted(&record, Some(2)))),
        _ => {}
    }
    life
}

async fn swarm(records: usize, ordered: Database, database: Database) {
    let options = PipelineOptions { title: true, ..PipelineOptions::default() };
    let lives: Vec<Vec<Event>> = (0..records).map(life).collect();

    let begin = Instant::now();
    let worker = ordered.worker_with(options.clone()).await;
    for (kind, body) in lives.iter().flatten() {
        worker.router.dispatch(Some(kind), body.clone(), &cx()).await.unwrap();
    }
    let expected = ordered.rows().await;
    println!("{} events in order: {:?}", lives.iter().flatten().count(), begin.elapsed());
    assert!(expected.iter().filter(|row| row.starts_with("record|")).count() == records);
    assert!(expected.iter().any(|row| row.starts_with("task|")) && expected.iter().any(|row| row.contains("NULL")));

    let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
    let mut events: Vec<Event> =
        lives.into_iter().flatten().flat_map(|event| [event.clone(), event.clone(), event]).collect();
    println!("seed {}", random.get_seed());
    random.shuffle(&mut events);
    let begin = Instant::now();
    let worker = Arc::new(database.worker_with(options).await);
    let (events, next) = (Arc::new(events), Arc::new(AtomicUsize::new(0)));
    let mut workers = Vec::new();
    for _ in 0..CONCURRENCY {
        let (worker, events, next) = (Arc::clone(&worker), Arc::clone(&events), Arc::clone(&next));
        workers.push(tokio::spawn(async move {
            let mut started = Vec::new();
            while let Some((kind, body)) = events.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answers = worker.router.dispatch(Some(kind), body.clone(), &cx()).await.unwrap();
                started.extend(tasks(&answers));
            }
            started
        }));
    }
    let mut started = Vec::new();
    for worker in workers {
        started.extend(worker.await.unwrap());
    }
    println!("{} events thrice, {CONCURRENCY} at a time: {:?}", events.len() / 3, begin.elapsed());

    let found = database.rows().await;
    if let Some((found, expected)) = found.iter().zip(&expected).find(|(found, expected)| found != expected) {
        panic!("found {found}, expected {expected}");
    }
    assert_eq!(found.len(), expected.len());
    let mut ids = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (kind, record, revision, task) in started {
        assert_eq!(task, follow_up_id(&id(&record), stage_of(&kind), revision).to_string());
        assert_eq!(ids.insert((kind.clone(), record.clone(), revision), task.clone()), None, "started twice");
        assert!(seen.insert(task));
    }
    // Whatever the order was, what is under way has been started by somebody.
    for row in expected.iter().filter(|row| row.starts_with("task|")) {
        assert!(seen.contains(row.rsplit('|').next().unwrap()), "{row} was never started");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_thousand_records_end_as_if_each_event_had_come_once_and_in_order() {
    limited(swarm(1000, Database::sqlite(), Database::sqlite())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_thousand_records_end_as_if_each_event_had_come_once_and_in_order() {
    limited(async { swarm(1000, Database::postgres().await, Database::postgres().await).await }).await;
}

/// One record only, and two stores as two processes have them: every event meets the others.
async fn all_copies_of_one_event_at_once(database: Database) {
    let workers = [Arc::new(database.worker().await), Arc::new(database.worker().await)];
    let (kind, body) = event(&created("r", 1, text_content("t")));
    let copies: Vec<_> = (0..64)
        .map(|copy| {
            let (worker, body) = (Arc::clone(&workers[copy % 2]), body.clone());
            tokio::spawn(async move { tasks(&worker.router.dispatch(Some(kind), body, &cx()).await.unwrap()) })
        })
        .collect();
    let mut started = Vec::new();
    for copy in copies {
        started.push(copy.await.unwrap().len());
    }
    started.sort_unstable();
    assert_eq!((started.pop(), started.pop()), (Some(2), Some(0)), "one of them starts both tasks");
}

on_both!(all_copies_of_one_event_at_once);
