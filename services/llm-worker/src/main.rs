//! Chat completions, summaries and titles: tasks from `jm.llm`, answers to `jm.coreRecordEvent`.

mod chinese;
mod cut;
mod handler;
mod headline;
mod language;
mod room;
mod summary;
mod tags;
mod title;

use std::process::ExitCode;

use jm_engines::EngineOptions;
use jm_mq_core::Payload;
use jm_service::{Sections, Service, Settings, Worker};
use jm_tasks::{Chat, Summarize, Title, queue};

use crate::handler::Assistant;

const WORKER: Worker = Worker {
    name: "llm-worker",
    about: "Chats, summarises and finds titles with a language model",
    version: env!("CARGO_PKG_VERSION"),
    queue: queue::LLM,
    types: &[Chat::TYPE, Summarize::TYPE, Title::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../config/llm-worker.yaml"),
};

struct LlmSettings {
    engine: EngineOptions,
}

impl Settings for LlmSettings {
    fn read(sections: &mut Sections) -> Self {
        Self { engine: sections.read("engine", EngineOptions::validate) }
    }
}

fn main() -> ExitCode {
    jm_service::run(&WORKER, async |service: &Service<LlmSettings>| {
        Ok(Assistant::new(service.settings().engine.chat()?).router())
    })
}
