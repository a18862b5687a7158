//! `jm schema`.

use clap::Args;

use crate::{exit::Code, failure::Failure, output::Output};

/// A message type's JSON Schema
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, _: Output) -> Result<Code, Failure> {
    Err(Failure::usage("not built yet"))
}
