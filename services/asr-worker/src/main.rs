//! Speech to text: tasks from `jm.asr`, answers to `jm.coreRecordEvent`.

mod handler;
mod speakers;

use std::process::ExitCode;

use jm_engines::{
    EngineOptions,
    audio::{AudioFetcher, AudioOptions, Decoder, decode_if_asked},
};
use jm_mq_core::{Payload, Router};
use jm_service::{Sections, Service, Settings, Worker};
use jm_tasks::{Transcribe, queue};

use crate::handler::Transcriber;

const WORKER: Worker = Worker {
    name: "asr-worker",
    about: "Writes down what is said in recordings, and by whom",
    version: env!("CARGO_PKG_VERSION"),
    queue: queue::ASR,
    types: &[Transcribe::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../config/asr-worker.yaml"),
};

struct AsrSettings {
    engine: EngineOptions,
    audio: AudioOptions,
}

impl Settings for AsrSettings {
    fn read(sections: &mut Sections) -> Self {
        Self {
            engine: sections.read("engine", EngineOptions::validate),
            audio: sections.read("audio", AudioOptions::validate),
        }
    }
}

fn main() -> ExitCode {
    // Before there are threads.
    decode_if_asked().unwrap_or_else(worker)
}

fn worker() -> ExitCode {
    jm_service::run(&WORKER, async |service: &Service<AsrSettings>| {
        let AsrSettings { engine, audio } = service.settings();
        let audio = AudioFetcher::new(audio.clone(), Decoder::this_program()?)?;
        let transcriber = Transcriber::new(audio, engine.transcription()?);
        Ok(Router::new().on(transcriber))
    })
}
