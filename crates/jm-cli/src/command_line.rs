//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum as _, error::ErrorKind};

use crate::{
    configuration::fleet,
    dead, doctor, exit,
    output::{Color, Output},
    publish, record, schema, shell, status, topology,
};

/// The operator's command: what is stuck, why did it fail, put it back safely
#[derive(Debug, Parser)]
#[command(name = "jm", version, max_term_width = 80, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// For every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Global {
    /// Folder of the workers' configuration, as their own
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// Only this worker's queue; may be repeated
    #[arg(long, global = true, value_name = "NAME", value_parser = fleet::names(), hide_possible_values = true)]
    pub(crate) worker: Vec<String>,
    /// The broker's management API
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) management: Option<String>,
    // A text, and empty, since `jm publish` has a body by this name.
    /// The answer as JSON
    #[arg(long, global = true, num_args = 0, default_missing_value = "")]
    pub(crate) json: Option<String>,
    /// Colours: auto, always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) color: Color,
}

/// What to do. Each has its arguments in its own module.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::Arguments),
    Topology(topology::Arguments),
    Dead(dead::Arguments),
    Publish(publish::Arguments),
    Record(record::Arguments),
    Schema(schema::Arguments),
    Doctor(doctor::Arguments),
    Completions(shell::CompletionsArguments),
    Man(shell::ManArguments),
}

const CONFIGURATION: &str = "\
Configuration, each winning over those before it:
  built-in defaults
  FOLDER/default.yaml        FOLDER is --config, or JM_CONFIG, or ./config
  FOLDER/<worker>.yaml       what that worker's queue is called, and the like
  FOLDER/jm.yaml             for jm's own connection, and the management API
  JM_SECTION__KEY=value      JM_RABBITMQ__HOST=rabbit
  JM_SECTION__KEY_FILE=path  JM_RABBITMQ__PASSWORD_FILE=/run/secrets/rabbitmq
Environment variables hold for all workers alike; --worker chooses one.";

const EXAMPLES: &str = "\
Examples:
  jm status --watch                what waits, where, and since when
  jm dead list jm.asr              what failed, and why
  jm topology diff                 what on the broker is not as specified
  jm doctor                        all that can be checked from here
  jm publish llm.chat --file task.json --wait";

impl CommandLine {
    /// Reads the process's arguments. Ends the process for `--help`, `--version` and what cannot be understood, the last
    /// with one line.
    pub(crate) fn read() -> Self {
        // Help is shown before the rest is read, and colours are a matter of it too.
        Output::new(false, color(std::env::args_os()));
        let read = command().try_get_matches().and_then(|mut matches| Self::from_arg_matches_mut(&mut matches));
        read.unwrap_or_else(|error| refuse(&error))
    }
}

/// What `--color` says, wherever it stands; clap complains of it should it be nothing that there is.
fn color(arguments: impl Iterator<Item = OsString>) -> Color {
    let mut arguments = arguments.filter_map(|argument| argument.into_string().ok());
    let mut color = None;
    while let Some(argument) = arguments.next() {
        let (name, value) =
            argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
        if name == "--color" {
            color = value.map(ToOwned::to_owned).or_else(|| arguments.next());
        }
    }
    color.and_then(|color| Color::from_str(&color, false).ok()).unwrap_or_default()
}

/// The whole command, also for completions and man pages.
pub(crate) fn command() -> clap::Command {
    CommandLine::command()
        .after_help(format!("{EXAMPLES}\n\n{}", exit::HELP))
        .after_long_help(format!("{EXAMPLES}\n\n{CONFIGURATION}\n\n{}", exit::HELP))
}

#[expect(clippy::exit, reason = "as clap does it itself; nothing was started yet")]
fn refuse(error: &clap::Error) -> ! {
    let shown = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if shown {
        error.exit();
    }
    Output::new(false, color(std::env::args_os())).complain(one_line(&error.to_string()));
    std::process::exit(i32::from(exit::Code::Usage as u8));
}

/// clap tells in paragraphs what is wrong, a tip, the usage, and where the help is. The first two are enough.
fn one_line(text: &str) -> String {
    let told: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")).collect();
    let told = told.into_iter().filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let told: Vec<&str> = told.map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: ")).collect();
    format!("{}; `jm help` tells what there is", told.join("; ").replace(":; ", ": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_a_valid_one() {
        command().debug_assert();
    }

    #[test]
    fn a_mistake_is_one_line_with_the_likeliest_meaning() {
        let error = command().try_get_matches_from(["jm", "statsu"]).unwrap_err();
        let line = one_line(&error.to_string());
        assert_eq!(
            line,
            "unrecognized subcommand 'statsu'; a similar subcommand exists: 'status'; `jm help` tells what there is"
        );
    }
}
