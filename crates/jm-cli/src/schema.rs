//! `jm schema`.

use clap::Args;
use jm_tasks::{CATALOG, MessageType};
use serde::Serialize;

use crate::{exit::Code, failure::Failure, output::Output};

const HELP: &str = "\
Examples:
  jm schema                            the types, and the queue of each
  jm schema asr.transcribe             as JSON, of draft 2020-12";

/// A message type's JSON Schema
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The AMQP type; without it, all are listed
    #[arg(value_name = "TYPE")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    r#type: &'static str,
    queue: &'static str,
}

pub(crate) fn run(arguments: &Arguments, output: Output) -> Result<Code, Failure> {
    match &arguments.name {
        Some(name) => output.json(&known(name)?.schema())?,
        None if output.is_json() => {
            let types: Vec<Listed> =
                CATALOG.iter().map(|known| Listed { r#type: known.name, queue: known.queue }).collect();
            output.json(&types)?;
        }
        None => {
            for known in CATALOG {
                output.line(format_args!("{:<18}  {}", known.name, known.queue));
            }
        }
    }
    Ok(Code::Ok)
}

/// The type of that name.
pub(crate) fn known(name: &str) -> Result<&'static MessageType, Failure> {
    MessageType::find(name)
        .ok_or_else(|| Failure::missing(format_args!("no message type `{name}`; `jm schema` lists them")))
}
