//! Notes, as a person writes or speaks them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use console::truncate_str;
use jm_models::{Cache, Catalogue, Role};
use jm_tasks::RecordId;
use uuid::Uuid;

use jm_report::plain;

/// A note that is about to become a record.
#[derive(Clone, Debug)]
pub struct Note {
    /// The record's id.
    pub id: RecordId,
    /// What people call it.
    pub title: String,
    /// What it consists of.
    pub content: Content,
    /// What becomes of its summary.
    pub summary: Summary,
}

/// What a note consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Written.
    Text(String),
    /// Spoken: a file.
    Recording(PathBuf),
}

/// What is expected of a note's summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// There is one.
    Written,
    /// The model refuses the note's language, and says so.
    Refused,
    /// Either: nobody knows the note's language yet.
    Either,
}

/// The demo's own notes, each with its language; the first line is the title. Two are about one release and two about one
/// journey; the tomatoes have nothing to do with either.
const WRITTEN: [(&str, &str); 5] = [
    ("en", include_str!("../notes/release-meeting.txt")),
    ("en", include_str!("../notes/android-crash.txt")),
    ("zh", include_str!("../notes/hangzhou-plan.txt")),
    ("zh", include_str!("../notes/hangzhou-packing.txt")),
    ("en", include_str!("../notes/tomatoes.txt")),
];

/// The catalogue's recording of a call, and its file.
const CALL: (&str, &str) = ("two-speaker-call", "sample.wav");

/// Wider titles are cut: they stand in the lines of reports. Chinese characters take two columns.
const TITLE_COLUMNS: usize = 60;

impl Note {
    /// A note with an id of its own. Its title is shown in many places, and is made fit for all of them here.
    pub fn new(title: &str, content: Content, summary: Summary) -> Result<Self> {
        let id = RecordId::new(format!("note-{}", Uuid::now_v7()))?;
        let title = truncate_str(&plain(title), TITLE_COLUMNS, "…").into_owned();
        Ok(Self { id, title, content, summary })
    }

    /// A text of the user's, called by its first line.
    pub fn of_text(text: &str) -> Result<Self> {
        let title = text.lines().map(plain).find(|line| !line.is_empty());
        Self::new(title.as_deref().unwrap_or("empty note"), Content::Text(text.to_owned()), Summary::Either)
    }

    /// A recording of the user's, called by the file's name.
    pub fn of_recording(file: PathBuf) -> Result<Self> {
        let title = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        Self::new(&title, Content::Recording(file), Summary::Either)
    }
}

/// The demo's recording, from the cache of models.
pub fn call(cache: &Cache) -> Result<PathBuf> {
    let catalogue = Catalogue::built_in();
    let call = catalogue.models().iter().find(|model| model.role == Role::Recording && model.name == CALL.0);
    let call = call.with_context(|| format!("config/models.toml has no recording {}", CALL.0))?;
    Ok(cache.find(call)?.join(CALL.1))
}

/// The demo's notes: a recording, and five texts in two languages. `writes` tells whether the chat model writes a
/// language.
pub fn of_the_demo(recording: Note, writes: impl Fn(&str) -> bool) -> Result<Vec<Note>> {
    let mut notes = vec![recording];
    for (language, file) in WRITTEN {
        let (title, text) = file.split_once('\n').context("a note has a title and a text")?;
        let summary = if writes(language) { Summary::Written } else { Summary::Refused };
        notes.push(Note::new(title, Content::Text(text.trim().to_owned()), summary)?);
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;

    use super::*;

    #[test]
    fn the_demos_notes_have_titles_and_texts_and_their_language_decides_about_their_summary() {
        let recording = Note::of_recording(PathBuf::from("/somewhere/call.wav")).unwrap();
        let notes = of_the_demo(recording, |language| language == "en").unwrap();
        assert_eq!(notes[0].title, "call.wav");
        assert_eq!(notes[3].title, "五月去杭州的安排");
        let summaries: Vec<Summary> = notes.iter().map(|note| note.summary).collect();
        let (yes, no) = (Summary::Written, Summary::Refused);
        assert_eq!(summaries, [Summary::Either, yes, yes, no, no, yes]);
        for note in &notes[1..] {
            let Content::Text(text) = &note.content else { panic!("{note:?}") };
            assert!(text.len() > 100 && !text.starts_with(&note.title), "{note:?}");
        }
    }

    #[test]
    fn a_text_is_called_by_its_first_line() {
        assert_eq!(Note::of_text("\n  Buy milk \nand bread").unwrap().title, "Buy milk");
        for empty in ["", "\u{7}\n \n"] {
            assert_eq!(Note::of_text(empty).unwrap().title, "empty note");
        }
        let cut = Note::of_text(&"长".repeat(1000)).unwrap().title;
        assert!(measure_text_width(&cut) <= TITLE_COLUMNS && cut.starts_with('长') && cut.ends_with('…'), "{cut}");
    }

    #[test]
    fn a_title_commands_no_terminal() {
        assert_eq!(Note::of_text("\u{1b}[2J\u{1b}]0;Milk\u{7}\nbread").unwrap().title, "[2J ]0;Milk");
        let file = PathBuf::from("/calls/\u{1b}[31mcall\n.wav");
        assert_eq!(Note::of_recording(file).unwrap().title, "[31mcall .wav");
    }
}
