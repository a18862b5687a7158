//! `make note`: one note to what is up, and what becomes of it.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, Result};
use record_event_worker::Store;
use tokio::time::Instant;

use crate::{
    broker::Desk,
    demo::{NEIGHBOURS, Outcome},
    follow::{Watch, store},
    journey::Journey,
    neighbours::{nearest, place},
    notes::Note,
    progress::Progress,
    recordings::Recordings,
    report::Report,
    state::{Sent, StateFolder},
};

/// Sends a note to what is up, and writes its report to `out` once nothing more will come of it.
///
/// # Errors
///
/// When nothing is up, it goes down meanwhile, or the note's recording cannot be copied.
pub async fn send(
    note: Note,
    state: &StateFolder,
    limit: Duration,
    progress: &mut Progress,
    out: &mut (impl Write + Send),
    coloured: bool,
) -> Result<Outcome> {
    let up = state.up()?.context("nothing is up; `make up` starts it")?;
    let desk = Desk::open(&up.access.amqp, Recordings::in_folder(&up.access.audio)).await?;
    let (mut tap, store) = (desk.tap().await?, store(&up.access)?);
    let earlier = state.sent()?;
    desk.publish(&note).await?;
    state.remember(&note)?;
    let mut journeys = [Journey::new(note)];
    let deadline = Instant::now() + limit;
    let watch = Watch { desk: &desk, tap: &mut tap, store: &store, progress, deadline };
    let still_up = || state.holder()?.map(drop).context("it has gone down; its log says why");
    let end = watch.follow(&mut journeys, still_up).await;
    progress.rest();
    let end = end?;
    let places = places(&store, &earlier).await?;
    let [journey] = &journeys;
    let own = journey.view.as_ref().and_then(place);
    let near = own.map(|own| nearest(&own, &places, NEIGHBOURS)).unwrap_or_default();
    let report = Report { coloured, chat: up.chat, advice: "make down up CHAT=qwen" };
    write!(out, "{}", report.of(journey, &near)).context("could not write the report")?;
    store.close().await;
    desk.close().await;
    Ok(Outcome { journeys: journeys.into(), end, folder: state.path().to_owned() })
}

/// Those of the notes before that have a vector.
async fn places(store: &Store, notes: &[Sent]) -> Result<Vec<(String, Vec<f32>)>> {
    let mut places = Vec::new();
    for note in notes {
        let view = store.record(&note.id).await.context("could not read a record")?;
        if let Some(place) = view.as_ref().and_then(place) {
            places.push((note.title.clone(), place));
        }
    }
    Ok(places)
}
