//! Watches notes until nothing more will come of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use record_event_worker::{DatabaseOptions, Store};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::{
    broker::Desk, dead_letters::DeadLetters, journey::Journey, pipeline::Access, progress::Progress, tap::Tap,
    workers::database_url,
};

/// How often the database is asked: results are there within milliseconds after their events.
const LOOK: Duration = Duration::from_millis(200);

/// How much later than the worker that stores a result its message may come here.
const LAG: Duration = Duration::from_secs(1);

/// Every so many looks the queues are counted, which costs the broker ten answers.
const LOOKS_PER_COUNT: u64 = 3;

/// How the watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every note has come to an end.
    Over,
    /// The time was up before.
    OutOfTime,
}

/// What is looked at.
pub struct Watch<'a> {
    /// The broker.
    pub desk: &'a Desk,
    /// Opened before the notes were published.
    pub tap: &'a mut Tap,
    /// The records.
    pub store: &'a Store,
    /// What people see meanwhile.
    pub progress: &'a mut Progress,
    /// When to give up.
    pub deadline: Instant,
}

/// The database of a pipeline that runs.
///
/// # Errors
///
/// When its path is none that a database can have.
pub fn store(access: &Access) -> Result<Store> {
    let options = DatabaseOptions { url: database_url(&access.database)?.into(), ..DatabaseOptions::default() };
    Store::open_existing(&options).context("could not open the database")
}

impl Watch<'_> {
    /// Returns when all journeys are over, or the time is up. `still_up` is asked again and again whether there still is
    /// somebody who works on them.
    ///
    /// # Errors
    ///
    /// When `still_up` fails, or broker or database do not answer.
    pub async fn follow(self, journeys: &mut [Journey], still_up: impl Fn() -> Result<()>) -> Result<End> {
        let Self { desk, tap, store, progress, deadline } = self;
        let mut dead_letters = desk.dead_letters();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0.. {
            ticks.tick().await;
            still_up()?;
            for journey in journeys.iter_mut().filter(|journey| !journey.is_over()) {
                journey.view = store.record(&journey.note.id).await.context("could not read a record")?;
            }
            if !catch_up(tap, journeys).await {
                still_up()?;
                anyhow::bail!("the connection to the broker is gone");
            }
            if look % LOOKS_PER_COUNT == 0 {
                deliver(&mut dead_letters, journeys, progress).await?;
                progress.waiting(desk.waiting().await?);
            }
            progress.show(journeys);
            if journeys.iter().all(Journey::is_over) {
                return Ok(End::Over);
            }
            if Instant::now() >= deadline {
                return Ok(End::OutOfTime);
            }
        }
        Ok(End::OutOfTime)
    }
}

/// Takes what the tap has brought, and waits a moment for what it is about to bring: the database may have the result of
/// a message that is still on its way here. `false` when it brings nothing any more.
async fn catch_up(tap: &mut Tap, journeys: &mut [Journey]) -> bool {
    let begun = Instant::now();
    let until = begun + LAG;
    while Instant::now() < until {
        let waits = journeys.iter().any(Journey::is_ahead_of_its_messages);
        match timeout_at(if waits { until } else { begun }, tap.next()).await {
            Ok(Some(seen)) => {
                if let Some(journey) = journeys.iter_mut().find(|journey| journey.note.id == seen.record) {
                    journey.saw(&seen);
                }
            }
            Ok(None) => return false,
            Err(_) => break,
        }
    }
    true
}

/// Gives each dead letter to the note that it is of.
async fn deliver(dead_letters: &mut DeadLetters<'_>, journeys: &mut [Journey], progress: &mut Progress) -> Result<()> {
    for letter in dead_letters.look(|warning| progress.say(warning)).await? {
        let owner = journeys.iter_mut().find(|journey| Some(&journey.note.id) == letter.record.as_ref());
        if let Some(journey) = owner {
            journey.lost(letter);
        }
    }
    Ok(())
}
