//! What `jm-demo` is asked for.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use jm_demo::{
    engines::{Chat, Engines},
    notes::Note,
    workers::Binaries,
};
use jm_models::Cache;

/// The whole pipeline on one machine: a private RabbitMQ, the five workers with engines in their own processes, and
/// notes to send them.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything, send real notes through it, show what becomes of them, stop everything.
    Run {
        #[command(flatten)]
        parts: Parts,
        /// A recording of yours (wav, mp3, m4a, flac, ogg) in place of the demo's call.
        #[arg(long, value_name = "FILE")]
        audio: Option<PathBuf>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Start everything in the background, with data that is kept.
    Up {
        #[command(flatten)]
        parts: Parts,
    },
    /// Send a note to what is up, and show what becomes of it.
    Note {
        #[command(flatten)]
        note: NoteArguments,
        #[command(flatten)]
        limit: Limit,
    },
    /// End what is up. Its data is kept.
    Down,
    /// Show whether something is up, and where. The exit code is 1 if nothing is.
    Status,
    /// What `up` leaves in the background.
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        parts: Parts,
    },
}

/// What the pipeline is made of.
#[derive(Clone, Debug, Args)]
pub(crate) struct Parts {
    /// The language model.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) chat: Chat,
    /// The folder with the workers' binaries; this program's own unless it is given.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) workers: Option<PathBuf>,
    /// A server that speaks the OpenAI API, in place of the embedded engines.
    #[arg(long, value_name = "URL", hide = true)]
    engines: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NoteArguments {
    /// A text.
    #[arg(value_name = "TEXT", allow_hyphen_values = true, value_parser = words)]
    words: Option<String>,
    /// A text.
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// A file with a text.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A recording (wav, mp3, m4a, flac, ogg).
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
}

/// When to give up.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Limit {
    /// When to give up, in minutes; for a recording of yours after a day, else after 10 (`run`) or 60 (`note`).
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=DAY))]
    minutes: Option<u64>,
}

/// More than all the stages of a recording may take by the workers' own limits, which end what hangs: hours of speech
/// take as long as they take.
const DAY: u64 = 24 * 60;

/// Minutes for the demo's own notes.
const RUN: u64 = 10;

/// Minutes for a text, which may have to wait behind others' recordings.
const NOTE: u64 = 60;

/// Longer texts are no notes: a record's event would be larger than the broker takes.
const MAX_TEXT_BYTES: u64 = 8 * 1024 * 1024;

impl Command {
    /// What is left of it after a signal.
    pub(crate) fn interrupted(&self) -> &'static str {
        match self {
            Self::Run { .. } | Self::Up { .. } | Self::Supervise { .. } => "all that was started is stopped",
            Self::Note { .. } => "a note that was sent goes its way, and its record is in the database",
            Self::Down => "what is up may still be stopping; `make down` waits for it",
            Self::Status => "not looked at to the end",
        }
    }
}

impl Parts {
    pub(crate) fn engines(&self) -> Engines {
        match &self.engines {
            Some(base_url) => Engines::Server { base_url: base_url.clone() },
            None => Engines::Embedded { chat: self.chat, models: Cache::from_environment() },
        }
    }

    /// The same, for the supervisor, which runs in another folder.
    pub(crate) fn of_supervisor(&self, binaries: &Binaries) -> Vec<String> {
        let chat = if self.chat == Chat::Qwen { "qwen" } else { "smollm2" };
        let folder = binaries.folder().to_string_lossy().into_owned();
        let mut arguments: Vec<String> = ["supervise", "--chat", chat, "--workers", &folder].map(str::to_owned).into();
        if let Some(engines) = &self.engines {
            arguments.extend(["--engines".to_owned(), engines.clone()]);
        }
        arguments
    }
}

impl NoteArguments {
    pub(crate) fn note(self) -> Result<Note> {
        if let Some(file) = self.audio {
            return Note::of_recording(file);
        }
        if let Some(file) = self.file {
            let metadata = std::fs::metadata(&file).with_context(|| format!("could not read {}", file.display()))?;
            anyhow::ensure!(
                metadata.len() <= MAX_TEXT_BYTES,
                "{} has more than {} MiB; that is no note",
                file.display(),
                MAX_TEXT_BYTES / 1_048_576
            );
            let text = std::fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
            return Note::of_text(&text);
        }
        Note::of_text(&self.text.or(self.words).unwrap_or_default())
    }
}

impl Limit {
    /// For the demo, with a recording of the user's or without.
    pub(crate) fn of_run(self, audio: Option<&PathBuf>) -> Duration {
        self.or(if audio.is_some() { DAY } else { RUN })
    }

    /// For one note.
    pub(crate) fn of_note(self, note: &NoteArguments) -> Duration {
        self.or(if note.audio.is_some() { DAY } else { NOTE })
    }

    fn or(self, minutes: u64) -> Duration {
        Duration::from_mins(self.minutes.unwrap_or(minutes))
    }
}

/// A text may begin with a dash; what looks like an option is a mistake more likely than a note.
fn words(text: &str) -> Result<String, String> {
    if text.starts_with("--") && !text.contains(char::is_whitespace) {
        return Err(format!("there is no such option; a note of these letters is sent by --text={text}"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, clap::Error> {
        let line = CommandLine::try_parse_from([&["jm-demo"], arguments].concat());
        line.map(|line| line.command)
    }

    fn limit(arguments: &[&str]) -> u64 {
        let limit = match parsed(arguments).unwrap() {
            Command::Run { audio, limit, .. } => limit.of_run(audio.as_ref()),
            Command::Note { note, limit } => limit.of_note(&note),
            other => panic!("{other:?}"),
        };
        limit.as_secs() / 60
    }

    #[test]
    fn the_command_line_is_a_valid_one() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_recording_may_take_its_time_unless_a_limit_is_given() {
        assert_eq!(limit(&["run"]), 10);
        assert_eq!(limit(&["run", "--audio", "hour.m4a"]), 1440);
        assert_eq!(limit(&["run", "--audio", "hour.m4a", "--minutes", "7"]), 7);
        assert_eq!(limit(&["note", "Milk."]), 60);
        assert_eq!(limit(&["note", "--audio", "hour.m4a"]), 1440);
        for minutes in ["0", "1441", "-1", "ten"] {
            parsed(&["run", "--minutes", minutes]).unwrap_err();
        }
    }

    #[test]
    fn a_text_may_begin_with_a_dash_and_a_mistyped_option_is_no_text() {
        let text = |arguments: &[&str]| match parsed(arguments) {
            Ok(Command::Note { note, .. }) => note.note().unwrap().title,
            other => panic!("{other:?}"),
        };
        for arguments in [["note", "- milk"], ["note", "--text=- milk"], ["note", "-- milk"]] {
            assert!(text(&arguments).ends_with("- milk"), "{arguments:?}");
        }
        assert_eq!(text(&["note", "-5 today", "--minutes=3"]), "-5 today");
        assert_eq!(text(&["note", "--text=--milk"]), "--milk");
        let error = parsed(&["note", "--minuts=3"]).unwrap_err().to_string();
        assert!(error.contains("there is no such option"), "{error}");
        parsed(&["note"]).unwrap_err();
        parsed(&["note", "milk", "--file", "f"]).unwrap_err();
    }
}
