//! Text to vectors: tasks from `jm.embed`, answers to `jm.coreRecordEvent`.

mod handler;

use std::process::ExitCode;

use jm_engines::EngineOptions;
use jm_mq_core::{Payload, Router};
use jm_service::{Sections, Service, Settings, Worker};
use jm_tasks::{Embed, queue};

use crate::handler::Embedder;

const WORKER: Worker = Worker {
    name: "embed-worker",
    about: "Turns texts into vectors, for search by meaning",
    version: env!("CARGO_PKG_VERSION"),
    queue: queue::EMBED,
    types: &[Embed::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../config/embed-worker.yaml"),
};

struct EmbedSettings {
    engine: EngineOptions,
}

impl Settings for EmbedSettings {
    fn read(sections: &mut Sections) -> Self {
        Self { engine: sections.read("engine", EngineOptions::validate) }
    }
}

fn main() -> ExitCode {
    jm_service::run(&WORKER, async |service: &Service<EmbedSettings>| {
        let embedder = Embedder { engine: service.settings().engine.embedding()? };
        Ok(Router::new().on(embedder))
    })
}
