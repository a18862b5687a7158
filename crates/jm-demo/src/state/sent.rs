//! The notes that were sent, which a new one is compared with.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
};

use anyhow::{Context as _, Result};
use jm_tasks::RecordId;
use serde::{Deserialize, Serialize};

use super::StateFolder;
use crate::notes::Note;

/// Notes that a new one is compared with: the latest.
const MAX_NOTES: usize = 200;

/// A note that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its record.
    pub id: RecordId,
    /// What people call it.
    pub title: String,
}

impl StateFolder {
    /// The notes that were sent last, the latest last.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn sent(&self) -> Result<Vec<Sent>> {
        let text = match fs::read_to_string(self.folder.join("notes.jsonl")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("could not read notes.jsonl of the state's folder"),
        };
        let lines: Vec<&str> = text.lines().rev().take(MAX_NOTES).collect();
        Ok(lines.into_iter().rev().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Remembers a note.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn remember(&self, note: &Note) -> Result<()> {
        let sent = Sent { id: note.id.clone(), title: note.title.clone() };
        let mut file = OpenOptions::new().append(true).create(true).open(self.folder.join("notes.jsonl"))?;
        // In one piece, since two may do so at once.
        file.write_all(format!("{}\n", serde_json::to_string(&sent)?).as_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_remembered_in_their_order_and_a_line_of_another_version_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        assert_eq!(state.sent().unwrap(), []);
        for text in ["one", "二"] {
            state.remember(&Note::of_text(text).unwrap()).unwrap();
            fs::write(state.path().join("x"), "").unwrap();
        }
        let mut file = OpenOptions::new().append(true).open(state.path().join("notes.jsonl")).unwrap();
        file.write_all(b"{}\n").unwrap();
        let titles: Vec<String> = state.sent().unwrap().into_iter().map(|sent| sent.title).collect();
        assert_eq!(titles, ["one", "二"]);
    }
}
