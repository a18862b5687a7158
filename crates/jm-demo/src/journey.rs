//! How far a note has come.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jm_tasks::Stage;
use record_event_worker::RecordView;

use crate::{
    dead_letters::DeadLetter,
    notes::{Content, Note, Summary},
    tap::{Mark, Seen},
};

/// A note on its way, and what was found out about it.
#[derive(Clone, Debug)]
pub struct Journey {
    /// The note.
    pub note: Note,
    /// What the database has of it.
    pub view: Option<RecordView>,
    /// Why the record itself was refused.
    pub refused: Option<DeadLetter>,
    stages: BTreeMap<Stage, Times>,
    dead: BTreeMap<Stage, DeadLetter>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    task: Option<Instant>,
    result: Option<Instant>,
}

/// How a stage stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It waits for another one.
    Later,
    /// Its task is in the queue, or with the worker, since then.
    UnderWay(Instant),
    /// Its result is in the database.
    Done,
    /// Its task is in the dead-letter queue.
    Dead(&'a DeadLetter),
    /// It never comes, since nothing is left for it to work on: no speech, or an earlier stage has failed.
    Never,
}

/// The stages in which a note can be; titles are not asked for.
pub const STAGES: [Stage; 4] = [Stage::Diarization, Stage::Transcription, Stage::Embedding, Stage::Summary];

impl Journey {
    /// Of a note that is about to be published.
    pub fn new(note: Note) -> Self {
        Self { note, view: None, refused: None, stages: BTreeMap::new(), dead: BTreeMap::new() }
    }

    /// The stages of this note: a text has neither speakers nor a transcript.
    pub fn stages(&self) -> &'static [Stage] {
        match self.note.content {
            Content::Recording(_) => &STAGES,
            Content::Text(_) => &STAGES[2..],
        }
    }

    /// Takes notice of a message.
    pub fn saw(&mut self, seen: &Seen) {
        let times = self.stages.entry(seen.stage).or_default();
        let time = match seen.mark {
            Mark::Task => &mut times.task,
            Mark::Result => &mut times.result,
        };
        // A repeat is the same work.
        time.get_or_insert(seen.at);
    }

    /// Takes notice of a dead letter of this note.
    pub fn lost(&mut self, mut letter: DeadLetter) {
        // The workers know the recording by the address of its copy; people do not.
        if letter.reason.starts_with("file://")
            && let Some((_, reason)) = letter.reason.split_once(": ")
        {
            letter.reason = String::from(reason);
        }
        match letter.stage {
            Some(stage) => _ = self.dead.entry(stage).or_insert(letter),
            None => _ = self.refused.get_or_insert(letter),
        }
    }

    /// How a stage stands.
    pub fn standing(&self, stage: Stage) -> Standing<'_> {
        let has = |stage: Stage| self.view.as_ref().is_some_and(|view| has(view, stage));
        if has(stage) {
            return Standing::Done;
        }
        if let Some(letter) = self.dead.get(&stage) {
            return Standing::Dead(letter);
        }
        let needed: &[Stage] = match stage {
            Stage::Diarization => &[],
            Stage::Transcription => &[Stage::Diarization],
            Stage::Embedding | Stage::Summary | Stage::Title => &[Stage::Diarization, Stage::Transcription],
        };
        let needed = needed.iter().filter(|needed| self.stages().contains(needed));
        let failed = self.refused.is_some() || needed.clone().any(|needed| self.dead.contains_key(needed));
        let is_of_the_text = matches!(stage, Stage::Embedding | Stage::Summary | Stage::Title);
        if failed || (is_of_the_text && self.is_without_text()) {
            return Standing::Never;
        }
        match self.stages.get(&stage).and_then(|times| times.task) {
            Some(since) => Standing::UnderWay(since),
            None => Standing::Later,
        }
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        let ended = |stage: &Stage| !matches!(self.standing(*stage), Standing::Later | Standing::UnderWay(_));
        self.refused.is_some() || (self.view.is_some() && self.stages().iter().all(ended))
    }

    /// From the stage's task to its result, its time in the queue included.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        let times = self.stages.get(&stage)?;
        times.result?.checked_duration_since(times.task?)
    }

    /// Whether the database has a result whose task or message was not seen yet.
    pub fn is_ahead_of_its_messages(&self) -> bool {
        let is_seen =
            |stage: &Stage| self.stages.get(stage).is_some_and(|times| times.task.and(times.result).is_some());
        self.stages().iter().any(|stage| self.standing(*stage) == Standing::Done && !is_seen(stage))
    }

    /// What is not as expected, a sentence each; nothing if all is well.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(letter) = &self.refused {
            complaints.push(format!("{} refused it: {}", letter.worker.name(), letter.reason));
            return complaints;
        }
        for &stage in self.stages() {
            let name = name(stage);
            match self.standing(stage) {
                Standing::Dead(letter) if stage == Stage::Summary && letter.is_of_the_language() => {
                    if self.note.summary == Summary::Written {
                        complaints.push(format!("{} refused it: {}", letter.worker.name(), letter.reason));
                    }
                }
                Standing::Dead(letter) => {
                    complaints.push(format!("no {name}: {} refused it: {}", letter.worker.name(), letter.reason));
                }
                Standing::Done if stage == Stage::Summary && self.note.summary == Summary::Refused => {
                    complaints.push("there is a summary in a language that the model does not write".to_owned());
                }
                Standing::Done if stage == Stage::Transcription && self.is_without_text() => {
                    complaints.push("nobody speaks in it, so there is neither a summary nor a vector".to_owned());
                }
                Standing::Never if complaints.is_empty() => complaints.push(format!("no {name}: it has no text")),
                Standing::Done | Standing::Never => {}
                Standing::UnderWay(since) => {
                    complaints.push(format!("no {name} yet, {} s after its task", since.elapsed().as_secs()));
                }
                Standing::Later => complaints.push(format!("no {name} yet; its task was not seen")),
            }
        }
        complaints
    }

    /// Whether it is known that there is nothing to embed and to summarise.
    fn is_without_text(&self) -> bool {
        match &self.note.content {
            Content::Text(text) => text.trim().is_empty(),
            Content::Recording(_) => {
                let transcription = self.view.as_ref().and_then(|view| view.transcription.as_ref());
                transcription.is_some_and(|transcription| transcription.text.trim().is_empty())
            }
        }
    }
}

/// What people call a stage's result.
pub fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Diarization => "speakers",
        Stage::Transcription => "words",
        Stage::Embedding => "vector",
        Stage::Summary => "summary",
        Stage::Title => "title",
    }
}

fn has(view: &RecordView, stage: Stage) -> bool {
    match stage {
        Stage::Diarization => view.diarization.is_some(),
        Stage::Transcription => view.transcription.is_some(),
        Stage::Embedding => view.embedding.is_some(),
        Stage::Summary => view.summary.is_some(),
        Stage::Title => view.title.is_some(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
