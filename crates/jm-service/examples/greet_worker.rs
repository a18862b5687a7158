//! A complete worker: tasks from `example.greet`, answers to `example.greeted`.

use std::{process::ExitCode, time::Duration};

use jm_mq_core::{Answers, Context, Handler, HandlerError, Message, Outgoing, Payload, Router};
use jm_service::{Sections, Service, Settings, Worker};
use serde::{Deserialize, Serialize};

const WORKER: Worker = Worker {
    name: "greet-worker",
    about: "Greets whoever is named in a task",
    version: env!("CARGO_PKG_VERSION"),
    queue: "example.greet",
    types: &[Greet::TYPE],
    answers_to: &["example.greeted"],
    defaults: "consumer: { concurrency: 4, prefetch_per_worker: 1, nack_requeue: false }",
};

#[derive(Deserialize)]
struct Greet {
    name: String,
    #[serde(default)]
    millis: u64,
    #[serde(default)]
    host: Option<String>,
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

/// The worker's own section of the configuration: `JM_GREETING__WORDS=Hi`.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Greeting {
    words: String,
}

impl Default for Greeting {
    fn default() -> Self {
        Self { words: "Hello".into() }
    }
}

impl Settings for Greeting {
    fn read(sections: &mut Sections) -> Self {
        sections.read("greeting", |_| Ok(()))
    }
}

struct Greeter(Greeting);

impl Handler<Greet> for Greeter {
    async fn handle(&self, task: Greet, cx: &Context) -> Result<Answers, HandlerError> {
        if task.name.is_empty() {
            return Err(HandlerError::permanent("nobody to greet"));
        }
        tracing::info!(attempt = cx.attempt(), "greeting");
        if let Some(host) = task.host {
            _ = tokio::net::lookup_host((host, 80)).await?; // stands for a client of another service
        }
        tokio::time::sleep(Duration::from_millis(task.millis)).await; // stands for slow work
        let greeted = Greeted { greeting: format!("{}, {}!", self.0.words, task.name) };
        Ok(Outgoing::new("example.greeted", "example.greeted", Message::of(&greeted)?).into())
    }
}

fn main() -> ExitCode {
    jm_service::run(&WORKER, async |service: &Service<Greeting>| {
        Ok(Router::new().on(Greeter(service.settings().clone())))
    })
}
