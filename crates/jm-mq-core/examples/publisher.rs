//! Sends a greeting task for each name given: `AMQP_DSN=amqp://… cargo run --example publisher -- Ada Grace`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its terminal")]

use std::{env, process::ExitCode};

use jm_mq_core::{Broker, BrokerOptions, Message, Outgoing, Payload, Publisher, PublisherOptions, Topology};
use serde::Serialize;

#[derive(Serialize)]
struct Greet {
    name: String,
}

impl Payload for Greet {
    const TYPE: &'static str = "example.greet";
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let dsn = env::var("AMQP_DSN").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2F".into());
    let broker = Broker::new(BrokerOptions::from_dsn(&dsn)?)?;
    let publisher = Publisher::new(&broker, PublisherOptions::default())?;
    publisher.declare(&Topology::work_queue("example.greet")).await?;

    let tasks = env::args().skip(1).map(|name| {
        let message = Message::of(&Greet { name })?;
        Ok(Outgoing::new("example.greet", "example.greet", message))
    });
    let tasks: Vec<Outgoing> = tasks.collect::<Result<_, serde_json::Error>>()?;

    let mut failed = false;
    for (task, result) in tasks.iter().zip(publisher.publish_all(&tasks).await) {
        let id = task.message().properties().message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        match result {
            Ok(()) => println!("{id} confirmed"),
            Err(error) => {
                eprintln!("{id} not confirmed: {error}");
                failed = true;
            }
        }
    }
    publisher.close().await;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
