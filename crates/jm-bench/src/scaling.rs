//! How consuming grows: with workers, bodies, what waits in the queue, and message types.

use anyhow::Result;
use serde::Serialize;

use crate::{
    case::Case,
    course::{Compared, Course},
    job::Job,
    options::Choice,
};

/// A table: one size varies.
#[derive(Debug, Serialize)]
pub(crate) struct Scaling {
    pub(crate) name: String,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) size: String,
    pub(crate) compared: Compared,
}

/// Pairs for each row; a table has many rows.
const ROUNDS: u16 = 3;
const WORKERS: [u16; 6] = [1, 2, 10, 50, 100, 200];
const BODIES: [u32; 5] = [100, 1024, 16 * 1024, 128 * 1024, 1024 * 1024];
/// All bodies of a run together, at most: a queue of gigabytes measures the disk.
const BYTES: u64 = 256 * 1024 * 1024;
const WAITING: [u64; 4] = [0, 10_000, 100_000, 1_000_000];
/// What is consumed of what waits.
const OF_WAITING: u64 = 50_000;
/// Small, so that a million of them are no measure of the disk.
const WAITING_BODY: u32 = 100;
const TYPES: [u16; 4] = [1, 5, 20, 50];

pub(crate) async fn measure(course: &Course<'_>) -> Result<Vec<Scaling>> {
    let options = course.options;
    let job = Job::from_options(options, &course.ground.vhost.uri());
    let mut tables = Vec::new();
    if options.wants(Choice::ScaleWorkers) {
        let rows = WORKERS.map(|workers| {
            let job = Job { workers, ..job.clone() };
            (workers.to_string(), Case::consume(format!("{workers} workers"), &job))
        });
        tables.push(table(course, "workers", rows).await?);
    }
    if options.wants(Choice::ScaleBody) {
        let rows = BODIES.map(|body_size| {
            let messages = job.messages.min(BYTES / u64::from(body_size));
            let job = Job { messages, body_size, ..job.clone() };
            (body_size.to_string(), Case::consume(format!("bodies of {body_size} bytes"), &job))
        });
        tables.push(table(course, "bytes of a body", rows).await?);
    }
    if options.wants(Choice::ScaleBacklog) {
        let rows = WAITING.map(|waiting| {
            let job = Job { body_size: WAITING_BODY, messages: OF_WAITING, ..job.clone() };
            let fed = OF_WAITING.saturating_sub(waiting);
            let case = Case::consume(format!("{waiting} messages waiting"), &job);
            (waiting.to_string(), Case { waiting, fed, ..case })
        });
        tables.push(table(course, "messages waiting", rows).await?);
    }
    if options.wants(Choice::ScaleTypes) {
        let rows = TYPES.map(|types| {
            let job = Job { types, ..job.clone() };
            (types.to_string(), Case::consume(format!("{types} message types"), &job))
        });
        tables.push(table(course, "message types, bodies read as JSON", rows).await?);
    }
    Ok(tables)
}

async fn table(course: &Course<'_>, name: &str, rows: impl IntoIterator<Item = (String, Case)>) -> Result<Scaling> {
    let mut measured = Vec::new();
    for (size, case) in rows {
        let compared = course.compare(&case, ROUNDS.min(course.options.rounds)).await?;
        measured.push(Row { size, compared });
    }
    Ok(Scaling { name: name.to_owned(), rows: measured })
}
