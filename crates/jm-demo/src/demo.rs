//! `make demo`: everything is started, six notes go through it, and everything is gone again.

use std::{io::Write, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::{
    broker::Desk,
    engines::Engines,
    follow::{End, Watch, store},
    journey::Journey,
    neighbours::{nearest, place},
    notes::{self, Content, Note, Summary},
    pipeline::{Pipeline, Plan},
    progress::Progress,
    recordings::Recordings,
    report::Report,
    workers::Binaries,
};

/// Neighbours that are shown of each note.
pub const NEIGHBOURS: usize = 2;

/// What `make demo` was asked for.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The engines.
    pub engines: Engines,
    /// The workers' binaries.
    pub binaries: Binaries,
    /// The notes.
    pub notes: Vec<Note>,
    /// When to give up.
    pub limit: Duration,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    /// The notes, with all that was found out about them.
    pub journeys: Vec<Journey>,
    /// Whether the time was up.
    pub end: End,
    /// The folder in which all of it ran. After [`Demo::run`] it is gone.
    pub folder: PathBuf,
}

impl Outcome {
    /// What is not as expected, a sentence each; nothing if all is well.
    pub fn complaints(&self) -> Vec<String> {
        let of = |journey: &Journey| {
            let title = journey.note.title.clone();
            journey.complaints().into_iter().map(move |complaint| format!("{title}: {complaint}"))
        };
        self.journeys.iter().flat_map(of).collect()
    }
}

/// The demo's notes, with the user's recording in place of the demo's own.
///
/// # Errors
///
/// When the recording is not there.
pub fn notes(engines: &Engines, models: &jm_models::Cache, audio: Option<PathBuf>) -> Result<Vec<Note>> {
    let recording = match audio {
        Some(file) => Note::of_recording(file)?,
        None => Note::new("A call between two people", Content::Recording(notes::call(models)?), Summary::Written)?,
    };
    notes::of_the_demo(recording, |language| engines.writes(language))
}

impl Demo {
    /// Starts everything, follows the notes, writes their reports to `out`, and stops everything. Dropped before its
    /// end, nothing is left either.
    ///
    /// # Errors
    ///
    /// What did not start or ended by itself. How the notes fared is no error, but in the outcome.
    pub async fn run(self, progress: &mut Progress, out: &mut (impl Write + Send), coloured: bool) -> Result<Outcome> {
        let deadline = Instant::now() + self.limit;
        let chat = self.engines.chat();
        let plan = Plan { engines: self.engines, binaries: self.binaries, kept: None, before: None };
        progress.doing("starting a private RabbitMQ and the five workers");
        let pipeline = Pipeline::start(plan, &mut |step| progress.step(&step)).await?;
        let (access, folder) = (pipeline.access(), pipeline.temporary_folder());
        let desk = Desk::open(&access.amqp, Recordings::in_folder(&access.audio)).await?;
        let (mut tap, store) = (desk.tap().await?, store(&access)?);
        for note in &self.notes {
            desk.publish(note).await?;
        }
        let mut journeys: Vec<Journey> = self.notes.into_iter().map(Journey::new).collect();
        let watch = Watch { desk: &desk, tap: &mut tap, store: &store, progress, deadline };
        let end = watch.follow(&mut journeys, || pipeline.check()).await;
        progress.rest();
        let end = end?;
        write!(out, "{}", report(&journeys, Report { coloured, chat, advice: "make demo CHAT=qwen" }))
            .context("could not write the report")?;
        store.close().await;
        desk.close().await;
        progress.doing("stopping");
        // What was not finished in time is not waited for: broker and workers end with the pipeline.
        let stopped = match end {
            End::Over => pipeline.stop().await,
            End::OutOfTime => {
                drop(pipeline);
                Ok(())
            }
        };
        progress.rest();
        stopped?;
        Ok(Outcome { journeys, end, folder })
    }
}

/// All notes, each with its neighbours among the others.
fn report(journeys: &[Journey], report: Report) -> String {
    let places: Vec<Option<Vec<f32>>> = journeys.iter().map(|journey| place(journey.view.as_ref()?)).collect();
    let mut pages = Vec::new();
    for (number, journey) in journeys.iter().enumerate() {
        let others: Vec<(String, Vec<f32>)> = (0..journeys.len())
            .filter(|&other| other != number)
            .filter_map(|other| Some((journeys[other].note.title.clone(), places[other].clone()?)))
            .collect();
        let near = places[number].as_ref().map(|place| nearest(place, &others, NEIGHBOURS)).unwrap_or_default();
        pages.push(report.of(journey, &near));
    }
    pages.join("\n")
}
