//! A complete worker: `AMQP_DSN=amqp://… cargo run --example worker` (without one: guest on this machine).

use std::{env, io::IsTerminal, time::Duration};

use jm_mq_core::{
    Answers, Broker, BrokerOptions, Consumer, ConsumerOptions, Context, Handler, HandlerError, Message, Outgoing,
    Payload, Publisher, PublisherOptions, Router, Topology, shutdown_signal,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Greet {
    name: String,
    #[serde(default)]
    millis: u64,
}

impl Payload for Greet {
    const TYPE: &'static str = "example.greet";
}

#[derive(Serialize)]
struct Greeted {
    greeting: String,
}

impl Payload for Greeted {
    const TYPE: &'static str = "example.greeted";
}

struct Greeter;

impl Handler<Greet> for Greeter {
    async fn handle(&self, task: Greet, cx: &Context) -> Result<Answers, HandlerError> {
        if task.name.is_empty() {
            return Err(HandlerError::permanent("nobody to greet"));
        }
        tokio::time::sleep(Duration::from_millis(task.millis)).await; // stands for slow work
        tracing::info!(name = task.name, attempt = cx.attempt(), "greeted");
        let greeted = Greeted { greeting: format!("Hello, {}!", task.name) };
        Ok(Outgoing::new("example.greeted", "example.greeted", Message::of(&greeted)?).into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let colour = std::io::stdout().is_terminal();
    tracing_subscriber::fmt().with_env_filter("info,lapin=off").with_ansi(colour).init();
    let dsn = env::var("AMQP_DSN").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2F".into());
    let broker = Broker::new(BrokerOptions::from_dsn(&dsn)?)?;
    let publisher = Publisher::new(&broker, PublisherOptions::default())?;
    publisher.declare(&Topology::work_queue("example.greeted")).await?;
    let router = Router::new().on(Greeter);
    let queue = Topology::work_queue("example.greet");
    let consumer = Consumer::new(&broker, &publisher, queue, ConsumerOptions::default(), router)?;
    let drained = consumer.run_until(shutdown_signal()?).await;
    tracing::info!(?drained, "drained");
    Ok(())
}
