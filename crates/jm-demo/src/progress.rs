//! What people see while they wait: living lines on a terminal, a line for each event elsewhere.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _, Write},
    time::{Duration, Instant},
};

use console::{Alignment, pad_str, style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jm_report::seconds;
use jm_tasks::Stage;

use crate::{
    journey::{Journey, Standing, name},
    pipeline::Step,
    workers::Kind,
};

/// Columns for a note's title.
const TITLE: usize = 18;

/// How often a spinner turns while nothing else happens.
const TURN: Duration = Duration::from_millis(120);

/// The names of the queues' work, in the order of [`Kind::ALL`].
const QUEUES: [&str; 5] = ["events", "speakers", "words", "vectors", "summaries"];

/// Where progress is shown.
pub struct Progress {
    begun: Instant,
    shown: Shown,
    waiting: [u32; 5],
    told: BTreeSet<(usize, Stage)>,
}

enum Shown {
    /// A line for each note, and one for the queues; before there are notes, one for what is being done.
    Live { lines: MultiProgress, doing: Option<ProgressBar>, notes: Vec<ProgressBar>, queues: Option<ProgressBar> },
    /// A line for each event.
    Plain(Box<dyn Write + Send>),
}

impl Progress {
    /// On standard error, by what that is.
    pub fn on_stderr() -> Self {
        if io::stderr().is_terminal() {
            let lines = MultiProgress::new();
            Self::new(Shown::Live { lines, doing: None, notes: Vec::new(), queues: None })
        } else {
            Self::plain(io::stderr())
        }
    }

    /// A line for each event.
    pub fn plain(to: impl Write + Send + 'static) -> Self {
        Self::new(Shown::Plain(Box::new(to)))
    }

    fn new(shown: Shown) -> Self {
        Self { begun: Instant::now(), shown, waiting: [0; 5], told: BTreeSet::new() }
    }

    /// What is being done now, until the next call of any kind.
    pub fn doing(&mut self, what: &str) {
        self.rest();
        match &mut self.shown {
            Shown::Live { lines, doing, .. } => {
                let bar = lines.add(spinner());
                bar.set_message(format!("{what} …"));
                bar.enable_steady_tick(TURN);
                *doing = Some(bar);
            }
            Shown::Plain(_) => self.line(&format!("{what} …")),
        }
    }

    /// What has been done.
    pub fn step(&mut self, step: &Step) {
        let done = style("✓").green().for_stderr();
        let line = format!("{done} {} ({})", step.what, seconds(step.took));
        match &self.shown {
            Shown::Live { .. } => self.line(&line),
            Shown::Plain(_) => self.line(&format!("{}: {}", step.what, seconds(step.took))),
        }
    }

    /// Something that is not of a single note.
    pub fn say(&mut self, what: &str) {
        self.line(what);
    }

    /// How many messages wait in each queue, in the order of [`Kind::ALL`].
    pub fn waiting(&mut self, waiting: [u32; 5]) {
        self.waiting = waiting;
    }

    /// How far the notes have come.
    pub fn show(&mut self, journeys: &[Journey]) {
        if let Shown::Live { lines, doing, notes, queues } = &mut self.shown {
            if notes.is_empty() {
                doing.take().inspect(ProgressBar::finish_and_clear);
                *notes = journeys.iter().map(|_| lines.add(spinner())).collect();
                *queues = Some(lines.add(ProgressBar::new_spinner().with_style(style_of("  {wide_msg:.dim}"))));
            }
            for (bar, journey) in notes.iter().zip(journeys) {
                bar.set_message(note_line(journey));
                bar.tick();
                if journey.is_over() && !bar.is_finished() {
                    bar.finish();
                }
            }
            if let Some(bar) = queues {
                bar.set_message(queues_line(&self.waiting));
            }
            return;
        }
        for (number, journey) in journeys.iter().enumerate() {
            for &stage in journey.stages() {
                let Some(line) = event_line(journey, stage) else { continue };
                if self.told.insert((number, stage)) {
                    let at = pad_str(&seconds(self.begun.elapsed()), 8, Alignment::Right, None).into_owned();
                    self.line(&format!("{at}  {line}"));
                }
            }
        }
    }

    /// Takes the living lines away.
    pub fn rest(&mut self) {
        if let Shown::Live { lines, doing, notes, queues } = &mut self.shown {
            doing.take().inspect(ProgressBar::finish_and_clear);
            notes.drain(..).chain(queues.take()).for_each(|bar| bar.finish_and_clear());
            // Nobody reads an error of the terminal's.
            let _ = lines.clear();
        }
    }

    fn line(&mut self, line: &str) {
        // A reader that has gone away is no reason to stop.
        let _ = match &mut self.shown {
            Shown::Live { lines, .. } => lines.println(line),
            Shown::Plain(to) => writeln!(to, "{line}").and_then(|()| to.flush()),
        };
    }
}

fn spinner() -> ProgressBar {
    ProgressBar::new_spinner().with_style(
        style_of("{spinner} {wide_msg}").tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "]),
    )
}

fn style_of(template: &str) -> ProgressStyle {
    // All templates are of this file; one that is wrong would show the default instead.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `Release meeting…   ✓ vector 0.4s  … summary 12s`
fn note_line(journey: &Journey) -> String {
    let mut line = pad_str(&journey.note.title, TITLE, Alignment::Left, Some("…")).into_owned();
    for &stage in journey.stages() {
        let (mark, time) = match journey.standing(stage) {
            Standing::Later => (style("·").dim(), None),
            Standing::UnderWay(since) => (style("…").yellow(), Some(since.elapsed())),
            Standing::Done => (style("✓").green(), journey.took(stage)),
            Standing::Dead(_) => (style("✗").red(), None),
            Standing::Never => (style("-").dim(), None),
        };
        let time = time.map(|time| format!(" {}s", time.as_secs())).unwrap_or_default();
        line = format!("{line}  {} {}{time}", mark.for_stderr(), name(stage));
    }
    line
}

fn queues_line(waiting: &[u32; 5]) -> String {
    let counts: Vec<String> = QUEUES.iter().zip(waiting).map(|(queue, count)| format!("{queue} {count}")).collect();
    format!("waiting in the queues: {}", counts.join(", "))
}

/// What has become of a stage, once something has.
fn event_line(journey: &Journey, stage: Stage) -> Option<String> {
    let (title, name) = (&journey.note.title, name(stage));
    match journey.standing(stage) {
        Standing::Done => {
            let took = journey.took(stage).map(|took| format!(", {} after its task", seconds(took)));
            Some(format!("{title}: {name}{}", took.unwrap_or_default()))
        }
        Standing::Dead(letter) => Some(format!("{title}: no {name}: {}", letter.reason)),
        Standing::Later | Standing::UnderWay(_) | Standing::Never => None,
    }
}

// The lines above name each worker's queue.
const _: () = assert!(QUEUES.len() == Kind::ALL.len());
