//! `jm record`.

use clap::Args;

use crate::{exit::Code, failure::Failure, operator::Operator};

/// A record as it is kept
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

#[expect(clippy::unused_async, reason = "it will")]
pub(crate) async fn run(_: Arguments, _: &Operator<'_>) -> Result<Code, Failure> {
    Err(Failure::usage("not built yet"))
}
