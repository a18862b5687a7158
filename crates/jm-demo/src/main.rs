//! `jm-demo`: what `make demo`, `make up`, `make note` and `make down` run.

use std::{
    fmt::Display,
    future::Future,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use jm_demo::{
    control::{self, Lowered, Raised},
    demo::{self, Demo, Outcome},
    engines::{Chat, Engines},
    follow::End,
    notes::Note,
    post,
    progress::Progress,
    recordings::Recordings,
    state::{StateFolder, Up},
    supervisor,
    workers::Binaries,
};
use jm_models::Cache;
use tokio::signal::unix::{SignalKind, signal};

/// The whole pipeline on one machine: a private RabbitMQ, the five workers with engines in their own processes, and
/// notes to send them.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything, send real notes through it, show what becomes of them, stop everything.
    Run {
        #[command(flatten)]
        parts: Parts,
        /// A recording of yours (wav, mp3, m4a, flac, ogg) in place of the demo's call.
        #[arg(long, value_name = "FILE")]
        audio: Option<PathBuf>,
        /// When to give up, in minutes.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
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
        /// When to give up, in minutes.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
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
struct Parts {
    /// The language model.
    #[arg(long, value_enum, default_value_t)]
    chat: Chat,
    /// The folder with the workers' binaries; this program's own unless it is given.
    #[arg(long, value_name = "FOLDER")]
    workers: Option<PathBuf>,
    /// A server that speaks the OpenAI API, in place of the embedded engines.
    #[arg(long, value_name = "URL", hide = true)]
    engines: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct NoteArguments {
    /// A text.
    #[arg(value_name = "TEXT")]
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

/// Longer texts are no notes: a record's event would be larger than the broker takes.
const MAX_TEXT_BYTES: u64 = 8 * 1024 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    // Has handlers of its own, and a log in place of a terminal.
    if let Command::Supervise { parts } = command {
        return code(supervise(parts).await.map(|()| true));
    }
    let signals = match signals() {
        Ok(signals) => signals,
        Err(error) => return code(Err(error)),
    };
    let interrupted = command.interrupted();
    tokio::select! {
        done = perform(command) => code(done),
        // With the future above goes all that it had started.
        (name, number) = signals => {
            complain(format_args!("{name}: {interrupted}"));
            ExitCode::from(128 + number)
        }
    }
}

/// Whether all is well.
async fn perform(command: Command) -> Result<bool> {
    match command {
        Command::Run { parts, audio, minutes } => run(parts, audio, minutes).await,
        Command::Up { parts } => up(&parts).await,
        Command::Note { note, minutes } => note_to_what_is_up(note, minutes).await,
        Command::Down => down().await,
        Command::Status => status().await,
        Command::Supervise { parts } => supervise(parts).await.map(|()| true),
    }
}

async fn run(parts: Parts, audio: Option<PathBuf>, minutes: u64) -> Result<bool> {
    if let Some(audio) = &audio {
        Recordings::check(audio)?;
    }
    let (engines, binaries) = (parts.engines(), Binaries::find(parts.workers.as_deref())?);
    introduce(&engines)?;
    let notes = demo::notes(&engines, &Cache::from_environment(), audio)?;
    let demo = Demo { engines, binaries, notes, limit: Duration::from_mins(minutes) };
    let mut progress = Progress::on_stderr();
    let outcome = demo.run(&mut progress, &mut io::stdout(), console::colors_enabled()).await?;
    Ok(conclude(&outcome, minutes))
}

/// Which models do the work, and where they come from.
fn introduce(engines: &Engines) -> Result<()> {
    engines.check()?;
    if let Engines::Embedded { chat, .. } = engines {
        let model = chat.model()?;
        say(format_args!("language model: {}", model.about));
        say_indented(&model.provenance, "  ");
        say_indented(&format!("licence: {}", model.licence), "  ");
    }
    Ok(())
}

/// Says how it ended, and whether that is well.
fn conclude(outcome: &Outcome, minutes: u64) -> bool {
    let complaints = outcome.complaints();
    say("");
    if outcome.end == End::OutOfTime {
        say(format_args!("not done after {minutes} min:"));
    }
    for complaint in &complaints {
        say_indented(complaint, "");
    }
    if complaints.is_empty() {
        say("all notes came to their end as expected");
    }
    complaints.is_empty() && outcome.end == End::Over
}

async fn up(parts: &Parts) -> Result<bool> {
    let state = StateFolder::from_environment()?;
    parts.engines().check()?;
    let binaries = Binaries::find(parts.workers.as_deref())?;
    let mut progress = Progress::on_stderr();
    let raised = control::up(&state, &parts.of_supervisor(&binaries), &mut progress).await;
    progress.rest();
    match raised? {
        Raised::Now(up) => show(&state, &up).await,
        Raised::Already(up) => {
            say("already up, since an earlier `make up`:");
            show(&state, &up).await;
            if up.chat.is_some_and(|chat| chat != parts.chat) {
                say("its language model is another one; `make down` first to change it");
            }
        }
    }
    say("\nsend it a note: `make note TEXT='…'` or `make note AUDIO=meeting.m4a`\nend it: `make down`");
    Ok(true)
}

async fn show(state: &StateFolder, up: &Up) {
    for line in control::addresses(state, up).await {
        say(line);
    }
}

async fn note_to_what_is_up(arguments: NoteArguments, minutes: u64) -> Result<bool> {
    let state = StateFolder::from_environment()?;
    let mut progress = Progress::on_stderr();
    let limit = Duration::from_mins(minutes);
    let coloured = console::colors_enabled();
    let note = arguments.note()?;
    let outcome = post::send(note, &state, limit, &mut progress, &mut io::stdout(), coloured).await?;
    Ok(conclude(&outcome, minutes))
}

async fn down() -> Result<bool> {
    let state = StateFolder::from_environment()?;
    match control::down(&state).await? {
        Lowered::Nothing => say("nothing is up"),
        Lowered::Stopped(took) => {
            let seconds = took.as_secs_f64();
            say(format_args!("stopped the five workers, RabbitMQ and their supervisor, in {seconds:.1} s"));
        }
        Lowered::Killed => say("the supervisor did not end by itself and was killed; all it had started ends with it"),
    }
    say(format_args!("records and queues are kept in {}", state.path().display()));
    Ok(true)
}

async fn status() -> Result<bool> {
    let state = StateFolder::from_environment()?;
    let Some(up) = state.up()? else {
        say("nothing is up; `make up` starts it");
        return Ok(false);
    };
    show(&state, &up).await;
    Ok(true)
}

async fn supervise(parts: Parts) -> Result<()> {
    let state = StateFolder::from_environment()?;
    let binaries = Binaries::find(parts.workers.as_deref())?;
    supervisor::supervise(state, parts.engines(), binaries).await
}

impl Command {
    /// What is left of it after a signal.
    fn interrupted(&self) -> &'static str {
        match self {
            Self::Run { .. } | Self::Up { .. } | Self::Supervise { .. } => "all that was started is stopped",
            Self::Note { .. } => "a note that was sent goes its way, and its record is in the database",
            Self::Down => "what is up may still be stopping; `make down` waits for it",
            Self::Status => "not looked at to the end",
        }
    }
}

impl Parts {
    fn engines(&self) -> Engines {
        match &self.engines {
            Some(base_url) => Engines::Server { base_url: base_url.clone() },
            None => Engines::Embedded { chat: self.chat, models: Cache::from_environment() },
        }
    }

    /// The same, for the supervisor, which runs in another folder.
    fn of_supervisor(&self, binaries: &Binaries) -> Vec<String> {
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
    fn note(self) -> Result<Note> {
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

/// Resolves at SIGINT or SIGTERM, with its name and number.
fn signals() -> Result<impl Future<Output = (&'static str, u8)>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen to signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not listen to signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => ("interrupted", 2),
            _ = terminate.recv() => ("terminated", 15),
        }
    })
}

fn code(done: Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(format_args!("jm-demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A reader that has gone away is no failure of ours.
fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// In lines of at most 78 columns, the second and later ones further in.
fn say_indented(text: &str, indent: &str) {
    let further = format!("{indent}  ");
    say(textwrap::fill(text, textwrap::Options::new(78).initial_indent(indent).subsequent_indent(&further)));
}
