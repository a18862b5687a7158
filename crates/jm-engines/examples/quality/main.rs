//! `make quality`: how good the embedded engines are, and how quick, each figure against its bound.
//!
//! What they work on is at hand: recordings of Debian's pocketsphinx-testdata and of the models' cache folder, notes and
//! questions of this program's own. So the figures say whether an engine works as it should, not how good a model is in
//! general.
#![allow(clippy::print_stdout, reason = "a command speaks on its terminal")]

mod chat;
mod conversation;
mod diarization;
mod diarization_error;
mod embedding;
mod recording;
mod report;
mod transcription;
mod word_error;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};
use jm_engines::{EngineKind, EngineOptions};
use jm_mq_core::OptionsError;

use self::report::{Format, Report};

/// Measures the embedded engines: how good they are, and how quick.
///
/// Prints each figure with its bound. The exit code is 1 if one of them is missed. The models have to be there
/// (`make models`), and Debian's package pocketsphinx-testdata for transcription and diarization.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these engines, with commas between them; otherwise all
    #[arg(long, value_name = "ENGINES", value_delimiter = ',')]
    only: Vec<Engine>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    Transcription,
    Diarization,
    Embedding,
    Chat,
}

fn main() -> Result<ExitCode> {
    // Before there are threads.
    jm_engines::audio::decode_if_asked().map_or_else(measure, Ok)
}

#[tokio::main]
async fn measure() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut report = Report::new(if arguments.json { Format::Json } else { Format::table() });
    for &engine in Engine::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(&engine) {
            continue;
        }
        match engine {
            Engine::Transcription => transcription::measure(&mut report).await?,
            Engine::Diarization => diarization::measure(&mut report).await?,
            Engine::Embedding => embedding::measure(&mut report).await?,
            Engine::Chat => chat::measure(&mut report).await?,
        }
    }
    report.finish()?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The embedded engines as they are by default.
fn embedded() -> EngineOptions {
    EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() }
}

/// An engine, or why it cannot be loaded.
fn loaded<T>(engine: Result<T, OptionsError>) -> Result<T> {
    engine.map_err(|error| anyhow!("{error}"))
}
