//! What has become of a note, for people: within 80 columns, in any script.

use console::Style;
use jm_report::{Page, plain, seconds, wrapped};
use jm_tasks::Stage;

use crate::{
    dead_letters::DeadLetter,
    engines::Chat,
    journey::{Journey, Standing, name},
    notes::Content,
};

/// How reports look.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Whether there are colours.
    pub coloured: bool,
    /// The language model, where it is one of ours.
    pub chat: Option<Chat>,
    /// The command that has the larger language model.
    pub advice: &'static str,
}

impl Report {
    /// All that was found out about a note.
    pub fn of(&self, journey: &Journey, neighbours: &[(&str, f32)]) -> String {
        let mut page = Page::new(self.coloured);
        page.heading(&journey.note.title);
        match (&journey.note.content, &journey.view) {
            (Content::Text(text), _) => page.beginning(text),
            (Content::Recording(_), Some(view)) => page.transcript(view),
            (Content::Recording(_), None) => {}
        }
        if let Some(view) = &journey.view {
            page.results(view);
            nearest(&mut page, neighbours);
        }
        self.failures(&mut page, journey);
        times(&mut page, journey);
        page.into_text()
    }

    /// Where it ended as a dead letter, and why.
    fn failures(&self, page: &mut Page, journey: &Journey) {
        if let Some(letter) = &journey.refused {
            self.failure(page, "record", letter);
        }
        for &stage in journey.stages() {
            if let Standing::Dead(letter) = journey.standing(stage) {
                self.failure(page, name(stage), letter);
            }
        }
    }

    fn failure(&self, page: &mut Page, name: &str, letter: &DeadLetter) {
        let mut sentence = format!("no {name}: {}", letter.reason);
        if letter.is_of_the_language() && self.chat == Some(Chat::Smollm2) {
            sentence = format!("{sentence}; `{}` uses the larger bilingual model", self.advice);
        } else {
            sentence = format!("{sentence} (kept in {}.dead)", letter.worker.queue());
        }
        let label = page.styled(Style::new().yellow(), name);
        let lines = wrapped(&sentence);
        page.entry(&label, &lines);
    }
}

/// The notes that mean the most similar.
fn nearest(page: &mut Page, neighbours: &[(&str, f32)]) {
    let near: Vec<String> = neighbours.iter().map(|(title, cosine)| format!("{cosine:.3}  {}", plain(title))).collect();
    if !near.is_empty() {
        page.entry("nearest", &near);
    }
}

/// The time of each stage, from its task to its result.
fn times(page: &mut Page, journey: &Journey) {
    let took = |stage: &Stage| Some(format!("{} {}", name(*stage), seconds(journey.took(*stage)?)));
    let times: Vec<String> = journey.stages().iter().filter_map(took).collect();
    if !times.is_empty() {
        page.wrapped_entry("took", &times.join(", "));
    }
}

#[cfg(test)]
mod tests;
