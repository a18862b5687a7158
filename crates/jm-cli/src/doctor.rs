//! `jm doctor`.

use clap::Args;

use crate::{exit::Code, failure::Failure, operator::Operator};

/// All that can be checked from here, and what to do about it
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) async fn run(_: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let _workers = operator.configuration.workers_of(&[])?;
    let connection = operator.connect("doctor").await?;
    connection.close().await;
    Ok(Code::Ok)
}
