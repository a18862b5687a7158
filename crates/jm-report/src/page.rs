//! Lines beside labels.

use std::{fmt::Write as _, time::Duration};

use console::{Style, measure_text_width, truncate_str};
use jm_tasks::TranscriptSegment;
use record_event_worker::RecordView;
use textwrap::{Options, WordSplitter};

use crate::plain::plain;

/// Columns of a line.
const WIDTH: usize = 78;
/// Columns of what a line is called.
const LABEL: usize = 11;
/// Numbers of a vector that are shown.
const NUMBERS: usize = 4;
/// Lines of a note's own text that are shown.
pub const TEXT_LINES: usize = 3;
/// Columns of a speaker's name.
const SPEAKER: usize = 20;
/// Turns of a transcript that are shown.
const TURNS: usize = 60;

/// A page in the making.
#[derive(Debug)]
pub struct Page {
    text: String,
    coloured: bool,
}

impl Page {
    /// An empty one.
    pub fn new(coloured: bool) -> Self {
        Self { text: String::new(), coloured }
    }

    /// What has been written.
    pub fn into_text(self) -> String {
        self.text
    }

    /// A rule with a title.
    pub fn heading(&mut self, title: &str) {
        let title = plain(title);
        let rule = "─".repeat(WIDTH.saturating_sub(measure_text_width(&title) + 4));
        let heading = self.styled(Style::new().bold(), &format!("── {title} {rule}"));
        self.line(&heading);
    }

    /// The beginning of a written note.
    pub fn beginning(&mut self, text: &str) {
        let mut lines = wrapped(text);
        if lines.len() > TEXT_LINES {
            lines.truncate(TEXT_LINES);
            lines.push("…".to_owned());
        }
        self.entry("text", &lines);
    }

    /// What is said, by turns of its speakers.
    pub fn transcript(&mut self, view: &RecordView) {
        if let Some(diarization) = &view.diarization {
            let mut found = format!("{} in {}", diarization.speakers, seconds(duration(diarization.duration)));
            if let Some(reason) = &diarization.reason {
                found = format!("none: {reason}");
            }
            self.wrapped_entry("speakers", &format!("{found} ({})", diarization.model));
        }
        let Some(transcription) = &view.transcription else { return };
        if transcription.text.trim().is_empty() {
            self.wrapped_entry("words", &format!("none: nobody speaks ({})", transcription.model));
            return;
        }
        let language = transcription.language.as_deref().unwrap_or("unknown language");
        self.wrapped_entry("words", &format!("in {language} ({})", transcription.model));
        let turns = turns(&transcription.segments);
        for (start, speaker, text) in turns.iter().take(TURNS) {
            let speaker = plain(speaker.unwrap_or("?"));
            let label = format!("  {} {}", clock(*start), truncate_str(&speaker, SPEAKER, "…"));
            self.entry(&label, &wrapped_after(text, measure_text_width(&label).max(LABEL - 1) + 1));
        }
        if turns.len() > TURNS {
            self.entry("", &[format!("… {} more turns", turns.len() - TURNS)]);
        }
    }

    /// What was found out besides the transcript.
    pub fn results(&mut self, view: &RecordView) {
        if let Some(title) = &view.title {
            self.wrapped_entry("title", &title.text);
        }
        if let Some(summary) = &view.summary {
            let language = summary.language.as_deref().map(|tag| format!(", in {tag}")).unwrap_or_default();
            let cut = if summary.truncated { ", cut off" } else { "" };
            let text = format!("{} ({}{language}{cut})", summary.text.trim_end(), summary.model);
            let lines: Vec<String> = text.lines().flat_map(wrapped).filter(|line| !line.is_empty()).collect();
            self.entry("summary", &lines);
        }
        if let Some(embedding) = &view.embedding {
            let first = embedding.vectors.first().map(Vec::as_slice).unwrap_or_default();
            let numbers: Vec<String> = first.iter().take(NUMBERS).map(|number| format!("{number:.4}")).collect();
            let passages = match embedding.vectors.len() {
                1 => String::new(),
                count => format!(", {count} passages"),
            };
            let (dimensions, model) = (embedding.dimensions, &embedding.model);
            let vector = format!("{dimensions} numbers: {}, …{passages} ({model})", numbers.join(", "));
            self.wrapped_entry("vector", &vector);
        }
    }

    /// A label, and a text beside it, in as many lines as it takes.
    pub fn wrapped_entry(&mut self, label: &str, text: &str) {
        self.entry(label, &wrapped(text));
    }

    /// A label, and lines beside it.
    pub fn entry(&mut self, label: &str, lines: &[String]) {
        let column = measure_text_width(label).max(LABEL - 1) + 1;
        let label = if label.contains('\u{1b}') { label.to_owned() } else { self.styled(Style::new().dim(), label) };
        for (number, line) in lines.iter().enumerate() {
            let label = if number == 0 { label.as_str() } else { "" };
            let gap = " ".repeat(column - measure_text_width(label).min(column));
            self.line(&format!("{label}{gap}{line}"));
        }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// A text in a style, if there are any.
    pub fn styled(&self, style: Style, text: &str) -> String {
        style.force_styling(self.coloured).apply_to(text).to_string()
    }
}

/// In lines that fit beside a label.
pub fn wrapped(text: &str) -> Vec<String> {
    wrapped_after(text, LABEL)
}

/// In lines that fit beside a label of so many columns. All texts come through here.
fn wrapped_after(text: &str, column: usize) -> Vec<String> {
    let text = plain(text);
    let lines = textwrap::wrap(&text, Options::new(WIDTH - column).word_splitter(WordSplitter::NoHyphenation));
    lines.into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Neighbouring segments of one speaker as one turn: where it begins, who speaks, what is said.
fn turns(segments: &[TranscriptSegment]) -> Vec<(f64, Option<&str>, String)> {
    let mut turns: Vec<(f64, Option<&str>, String)> = Vec::new();
    for segment in segments {
        let (speaker, text) = (segment.speaker.as_deref(), segment.text.trim());
        match turns.last_mut() {
            Some((_, last, said)) if *last == speaker => *said = joined(said, text),
            _ => turns.push((segment.start, speaker, text.to_owned())),
        }
    }
    turns
}

/// With a space between, unless one of them is in a script that has none: its letters are two columns wide.
fn joined(said: &str, next: &str) -> String {
    let is_wide =
        |letter: Option<char>| letter.is_some_and(|letter| measure_text_width(letter.encode_utf8(&mut [0; 4])) > 1);
    let space = if is_wide(said.chars().last()) || is_wide(next.chars().next()) { "" } else { " " };
    format!("{said}{space}{next}")
}

/// `1:05`
fn clock(at: f64) -> String {
    let whole = duration(at).as_secs();
    format!("{}:{:02}", whole / 60, whole % 60)
}

/// What others say need not be a number of seconds.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// `1.5 s`
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
