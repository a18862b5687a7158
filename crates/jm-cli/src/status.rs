//! `jm status`.

use clap::Args;

use crate::{exit::Code, failure::Failure, operator::Operator};

/// What waits in the queues, who takes from them, and what failed
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these queues
    queue: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let _workers = operator.configuration.workers_of(&arguments.queue)?;
    let connection = operator.connect("status").await?;
    connection.close().await;
    Ok(Code::Ok)
}
