//! `jm completions` and `jm man`.

use std::io::Write as _;

use clap::Args;
use clap_complete::Shell;

use crate::{command_line, exit::Code, failure::Failure};

/// Completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(jm completions bash)
  jm completions zsh > \"${fpath[1]}/_jm\"
  jm completions fish > ~/.config/fish/completions/jm.fish")]
pub(crate) struct CompletionsArguments {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_enum, hide_possible_values = true)]
    shell: Shell,
}

/// The man page, of jm or of one of its commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  jm man | man -l -
  jm man topology > jm-topology.1")]
pub(crate) struct ManArguments {
    /// The command, such as `topology` or `dead replay`
    command: Vec<String>,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command_line::command(), "jm", &mut script);
    write(&script)
}

pub(crate) fn man(arguments: &ManArguments) -> Result<Code, Failure> {
    let mut command = command_line::command();
    command.build();
    for name in &arguments.command {
        let found = command.find_subcommand(name).cloned();
        command = found
            .ok_or_else(|| Failure::missing(format_args!("there is no command `{name}`; `jm help` lists them")))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    write(&page)
}

/// As it is: a reader that has gone away is no failure of ours.
fn write(text: &[u8]) -> Result<Code, Failure> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Code::Ok),
    }
}
