//! `jm-demo`: what `make demo`, `make up`, `make note` and `make down` run.

mod command_line;
mod say;

use std::{future::Future, io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use command_line::{Command, CommandLine, NoteArguments, Parts};
use jm_demo::{
    control::{self, Lowered, Raised},
    demo::{self, Demo, Outcome},
    engines::Engines,
    follow::End,
    post,
    progress::Progress,
    recordings::Recordings,
    state::{StateFolder, Up},
    supervisor,
    workers::Binaries,
};
use jm_models::Cache;
use say::{complain, say, say_indented};
use tokio::signal::unix::{SignalKind, signal};

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
        Command::Run { parts, audio, limit } => {
            let limit = limit.of_run(audio.as_ref());
            run(parts, audio, limit).await
        }
        Command::Up { parts } => up(&parts).await,
        Command::Note { note, limit } => {
            let limit = limit.of_note(&note);
            note_to_what_is_up(note, limit).await
        }
        Command::Down => down().await,
        Command::Status => status().await,
        Command::Supervise { parts } => supervise(parts).await.map(|()| true),
    }
}

async fn run(parts: Parts, audio: Option<PathBuf>, limit: Duration) -> Result<bool> {
    if let Some(audio) = &audio {
        Recordings::check(audio)?;
    }
    let (engines, binaries) = (parts.engines(), Binaries::find(parts.workers.as_deref())?);
    introduce(&engines)?;
    let notes = demo::notes(&engines, &Cache::from_environment(), audio)?;
    let demo = Demo { engines, binaries, notes, limit };
    let mut progress = Progress::on_stderr();
    let outcome = demo.run(&mut progress, &mut io::stdout(), console::colors_enabled()).await?;
    Ok(conclude(&outcome, limit))
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
fn conclude(outcome: &Outcome, limit: Duration) -> bool {
    let complaints = outcome.complaints();
    say("");
    if outcome.end == End::OutOfTime {
        say(format_args!("not done after {} min:", limit.as_secs() / 60));
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

async fn note_to_what_is_up(arguments: NoteArguments, limit: Duration) -> Result<bool> {
    let state = StateFolder::from_environment()?;
    let mut progress = Progress::on_stderr();
    let coloured = console::colors_enabled();
    let note = arguments.note()?;
    let outcome = post::send(note, &state, limit, &mut progress, &mut io::stdout(), coloured).await?;
    Ok(conclude(&outcome, limit))
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
