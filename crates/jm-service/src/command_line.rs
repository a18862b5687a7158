//! The command line every worker has.

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::{exit, worker::Worker};

#[derive(Debug, Parser)]
pub(crate) struct CommandLine {
    /// Folder with default.yaml and the worker's own file, which win over the built-in ones
    #[arg(long, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// Check the configuration and end: 0 if it is right, else 78 and a line for each mistake
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Print the configuration with the source of each value, secrets masked
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Ask this configuration's running worker whether it is ready: 0 if it is, else 1 and why not
    #[arg(long)]
    pub(crate) health: bool,
}

impl CommandLine {
    /// Reads the process's arguments. Ends the process for `--help`, `--version` and what cannot be understood.
    pub(crate) fn read(worker: &Worker) -> Self {
        let matches = command(worker).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn command(worker: &Worker) -> clap::Command {
    CommandLine::command()
        .name(worker.name)
        .bin_name(worker.name)
        .about(worker.about)
        .version(worker.version)
        .after_help(after_help(worker))
}

fn after_help(worker: &Worker) -> String {
    let Worker { name, queue, .. } = worker;
    let types = worker.types.join(", ");
    let answers = match worker.answers_to {
        [] => String::new(),
        queues => format!(", and answers to {}", queues.join(", ")),
    };
    format!(
        "\
It consumes the queue {queue}{answers}.
It handles messages of type {types}.

Configuration, each winning over those before it:
  built-in defaults               shown by `{name} --print-config`
  FOLDER/default.yaml             FOLDER is --config, or JM_CONFIG, or ./config if there is one
  FOLDER/{name}.yaml
  JM_SECTION__KEY=value           JM_RABBITMQ__HOST=rabbit, JM_HTTP__LISTEN=127.0.0.1:9191
  JM_SECTION__KEY_FILE=path       the value is the file's content: JM_RABBITMQ__PASSWORD_FILE=/run/secrets/password

While it runs, http.listen (default 0.0.0.0:9090) answers:
  /health/live    200 as long as the process works
  /health/ready   200 while every consumer is registered with the broker, else 503 and the reason
  /metrics        for Prometheus
For a container's health check, `{name} --health` asks /health/ready of the running one.

SIGTERM or Ctrl-C drains: nothing new is started, running tasks may finish within consumer.drain_timeout, everything
else goes back to the queue. A second signal ends the process at once.

Exit codes: {ok} drained, {failed} cannot start (with --health: not ready), {usage} wrong command line, {config} wrong configuration,
130 and 143 second signal.",
        ok = exit::OK,
        failed = exit::FAILED,
        usage = exit::USAGE,
        config = exit::CONFIGURATION,
    )
}
