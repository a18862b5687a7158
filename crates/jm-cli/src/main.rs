//! `jm`: the operator's command. What is stuck, why did it fail, put it back safely.
//!
//! ```text
//! command_line ──> configuration: jm.yaml and every worker's ──> Operator ──> a command ──> output
//!                                                                   ├──> AMQP: jm-mq-core's Connection
//!                                                                   └──> management API, where there is one
//! ```
//!
//! Each command is a module with its own `Arguments` and `run`. It answers by [`Operator::output`], and ends with an
//! [`exit::Code`] or a [`Failure`], which is one line.

mod alarms;
mod amqp;
mod broker_version;
mod command_line;
mod configuration;
mod dead;
mod delivery_limit;
mod doctor;
mod exit;
mod failure;
mod inbox;
mod interrupt;
mod management;
mod operator;
mod output;
mod publish;
mod record;
mod schema;
mod shell;
mod status;
mod topology;

use std::process::ExitCode;

use crate::{
    command_line::{Command, CommandLine},
    configuration::Configuration,
    exit::Code,
    failure::Failure,
    interrupt::Interrupt,
    operator::Operator,
    output::Output,
};

#[tokio::main]
async fn main() -> ExitCode {
    let line = CommandLine::read();
    let output = Output::new(line.global.json.is_some(), line.global.color);
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return end(output, Err(error.into())),
    };
    let done = tokio::select! {
        biased;
        done = perform(line, output, &interrupt) => done,
        // With the future above goes all that it had opened: unsettled messages are back in their queues.
        code = interrupt.unattended() => Err(Failure::interrupted(code)),
    };
    end(output, done)
}

async fn perform(line: CommandLine, output: Output, interrupt: &Interrupt) -> Result<Code, Failure> {
    let CommandLine { global, command } = line;
    let command = match command {
        // These need no configuration, and no broker.
        Command::Completions(arguments) => return shell::completions(&arguments),
        Command::Man(arguments) => return shell::man(&arguments),
        Command::Schema(arguments) => return schema::run(&arguments, output),
        command => command,
    };
    let configuration = Configuration::load(&global)?;
    let operator = Operator::new(configuration, output, interrupt)?;
    match command {
        Command::Status(arguments) => status::run(&arguments, &operator).await,
        Command::Topology(arguments) => topology::run(&arguments, &operator).await,
        Command::Dead(arguments) => dead::run(arguments, &operator).await,
        Command::Publish(arguments) => publish::run(arguments, &operator).await,
        Command::Record(arguments) => record::run(arguments, &operator).await,
        Command::Doctor(arguments) => doctor::run(&arguments, &operator).await,
        Command::Completions(_) | Command::Man(_) | Command::Schema(_) => unreachable!("these have returned above"),
    }
}

fn end(output: Output, done: Result<Code, Failure>) -> ExitCode {
    let code = done.unwrap_or_else(|failure| {
        for line in failure.lines() {
            output.complain(line);
        }
        failure.code()
    });
    code.into()
}
