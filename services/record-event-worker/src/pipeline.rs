//! Which tasks a record needs next, and which of them an event is to start.
//!
//! ```text
//! audio ──> diarization ──> transcription ──┐
//! text ─────────────────────────────────────┴──> embedding, summary, title
//! ```
//!
//! [`due`] is a function of the record's state alone: the stages that have what they need at the record's revision, and
//! no result yet. A stage once done at a revision is never due again at that revision, in whatever order events arrive.
//!
//! # Why a task is started once, and never lost
//!
//! The table `tasks` holds exactly what is due: each event takes out what no longer is, and puts in what has become so.
//! The event that puts a task in is the one that starts it, so of three copies of an event only one does: they take
//! turns at the record's row.
//!
//! But the row is committed before the task is published. If the process dies in between, the row says "started" and
//! nobody ever got the task. Nobody acked the event either: the broker delivers it again, marked `redelivered`. So such
//! a delivery starts whatever is due once more, as does a further attempt of the same delivery. Most of the time that
//! is a repeat, with the same message id, the same work and a result that changes nothing the second time: a price for
//! losing nothing.
//!
//! Only an event of the record's present revision puts a row in, and so only such an event has to start it again: an
//! older one's tasks have been replaced by those of its successor. Of which kind it is does not matter. As long as the
//! options stay the same, nothing becomes due by a summary; but if titles were switched on since the record's last
//! event, the summary is the event that finds one due.
//!
//! Left is the event that comes back without the mark, because an operator moved it there from a dead-letter queue.
//! That is told by the headers of dead letters, or by the time: a task started longer than `restart_after` ago may have
//! met any fate. Then content, diarization and transcription start it again, but not a result that ends the pipeline:
//! vectors regularly arrive while the summary of a long text still waits for its turn.
//!
//! # What is done more often than it had to be
//!
//! A new revision of a record is diarized and transcribed again, even if its recording is the one of the revision
//! before. To take the older transcript over, one would have to know that the recordings are the same, and revisions
//! need not arrive in order, nor all of them: the outcome would depend on which ones this worker has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use jm_mq_core::OptionsError;
use jm_tasks::{RecordContent, Stage};
use serde::{Deserialize, Serialize};

use crate::{
    event::{Change, Finding},
    state::RecordState,
};

/// Which stages there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration that is on or off")]
pub struct PipelineOptions {
    /// Find out who speaks before writing down what is said. Default yes; without, transcripts have no speakers.
    pub diarize: bool,
    /// Turn texts into vectors. Default yes.
    pub embed: bool,
    /// Summarise texts. Default yes.
    pub summarize: bool,
    /// Find titles for records without one. Default no: products show the first line instead.
    pub title: bool,
    /// The longest passage that gets a vector of its own, in characters. Default 1000: a paragraph or two, which the
    /// usual models can read whole.
    pub passage_chars: usize,
    /// A task without a result after this time is started again when its event comes back. Default 10 min: longer than
    /// most tasks take, shorter than an operator needs to look after dead letters.
    #[serde(with = "duration")]
    pub restart_after: Duration,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            diarize: true,
            embed: true,
            summarize: true,
            title: false,
            passage_chars: 1000,
            restart_after: Duration::from_mins(10),
        }
    }
}

/// Shorter passages say nothing, longer ones no model reads.
const PASSAGE_CHARS: std::ops::RangeInclusive<usize> = 50..=20_000;

/// A day: what is longer is a typing error.
const MAX_RESTART_AFTER: Duration = Duration::from_hours(24);

impl PipelineOptions {
    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        if !PASSAGE_CHARS.contains(&self.passage_chars) {
            return Err(OptionsError {
                option: "passage_chars".into(),
                value: self.passage_chars.to_string(),
                allowed: "50 to 20000".into(),
            });
        }
        if !(Duration::from_secs(1)..=MAX_RESTART_AFTER).contains(&self.restart_after) {
            return Err(OptionsError {
                option: "restart_after".into(),
                value: format!("{:?}", self.restart_after),
                allowed: "1s to 24h".into(),
            });
        }
        Ok(())
    }
}

/// A task whose result has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// The record's revision.
    pub revision: i64,
    /// Milliseconds since 1970, UTC.
    pub started_at: i64,
}

/// Why a delivery may be one whose tasks were never published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The first of its kind.
    First,
    /// Given out before: marked `redelivered`, a further attempt, or brought back from a dead-letter queue.
    Again,
}

/// What is to be done after an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The stages whose tasks are to be started, now.
    pub start: BTreeSet<Stage>,
    /// The tasks that are then under way.
    pub started: BTreeMap<Stage, Started>,
}

/// The stages that have what they need at the record's revision, and no result.
pub fn due(state: &RecordState, options: &PipelineOptions) -> BTreeSet<Stage> {
    let mut due = BTreeSet::new();
    let Some(content) = &state.content else { return due };
    // A newer result than the record's revision counts: what it is about is on its way, and this would come too late.
    let missing = |stage| state.reached(stage) < state.revision;
    let mut take = |stage, wanted: bool| {
        if wanted && missing(stage) {
            due.insert(stage);
        }
    };
    if content.audio.is_some() {
        // Who speaks is of use only to a transcription that is still to come.
        take(Stage::Diarization, options.diarize && missing(Stage::Transcription));
        let diarized = !options.diarize || state.reached(Stage::Diarization) == state.revision;
        take(Stage::Transcription, diarized);
    }
    let has_text = texts(state, content).is_some_and(|texts| texts.iter().any(|text| !text.trim().is_empty()));
    let has_title = content.title.as_ref().is_some_and(|title| !title.trim().is_empty());
    take(Stage::Embedding, has_text && options.embed);
    take(Stage::Summary, has_text && options.summarize);
    take(Stage::Title, has_text && options.title && !has_title);
    due
}

/// The record's own text and its transcript, either possibly empty; `None` while there is a transcript to wait for.
pub(crate) fn texts<'a>(state: &'a RecordState, content: &'a RecordContent) -> Option<[&'a str; 2]> {
    let own = content.text.as_deref().unwrap_or_default();
    if content.audio.is_none() {
        return Some([own, ""]);
    }
    let result = state.results.get(&Stage::Transcription)?;
    match &result.finding {
        Finding::Transcript(transcript) if result.revision == state.revision => Some([own, transcript]),
        Finding::Transcript(_) | Finding::Turns(_) | Finding::End => None,
    }
}

/// What is to be started after `change` has brought about `state`, and what is then under way. `now` is in
/// milliseconds since 1970, UTC.
pub fn plan(
    state: &RecordState,
    before: &BTreeMap<Stage, Started>,
    change: &Change,
    delivery: Delivery,
    now: i64,
    options: &PipelineOptions,
) -> Plan {
    let mut plan = Plan::default();
    let is_present = is_present(state, change);
    let makes_due = is_present && makes_due(change);
    for stage in due(state, options) {
        let known = before.get(&stage).filter(|started| started.revision == state.revision);
        // The clock may have been set back since: a start in the far future tells as little as one long ago.
        let forgotten = known
            .is_some_and(|started| u128::from(now.abs_diff(started.started_at)) >= options.restart_after.as_millis());
        let restarted = forgotten && makes_due;
        let started = match known {
            Some(started) if !restarted => *started,
            None if !is_present => continue,
            Some(_) | None => Started { revision: state.revision, started_at: now },
        };
        if known.is_none() || restarted || (is_present && delivery == Delivery::Again) {
            plan.start.insert(stage);
        }
        plan.started.insert(stage, started);
    }
    plan
}

/// Whether the event is about the record's present revision: another one starts nothing.
fn is_present(state: &RecordState, change: &Change) -> bool {
    match change {
        Change::Content { revision, .. } | Change::Finding { revision, .. } => revision.get() == state.revision,
        Change::Deletion { .. } => false,
    }
}

/// Whether tasks follow from events like this one, under whichever options.
fn makes_due(change: &Change) -> bool {
    match change {
        Change::Content { .. } | Change::Finding { stage: Stage::Diarization | Stage::Transcription, .. } => true,
        Change::Finding { stage: Stage::Embedding | Stage::Summary | Stage::Title, .. } | Change::Deletion { .. } => {
            false
        }
    }
}

#[cfg(test)]
mod tests;
