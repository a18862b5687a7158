//! Speaker diarization: tasks from `jm.sd`, answers to `jm.coreRecordEvent`.

mod handler;

use std::process::ExitCode;

use jm_engines::{
    EngineOptions,
    audio::{AudioFetcher, AudioOptions, Decoder, decode_if_asked},
};
use jm_mq_core::{Payload, Router};
use jm_service::{Sections, Service, Settings, Worker};
use jm_tasks::{Diarize, queue};

use crate::handler::Diarizer;

const WORKER: Worker = Worker {
    name: "sd-worker",
    about: "Finds out who speaks when in recordings",
    version: env!("CARGO_PKG_VERSION"),
    queue: queue::SD,
    types: &[Diarize::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../config/sd-worker.yaml"),
};

struct SdSettings {
    engine: EngineOptions,
    audio: AudioOptions,
}

impl Settings for SdSettings {
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
    jm_service::run(&WORKER, async |service: &Service<SdSettings>| {
        let SdSettings { engine, audio } = service.settings();
        let diarizer = Diarizer {
            audio: AudioFetcher::new(audio.clone(), Decoder::this_program()?)?,
            engine: engine.diarization()?,
        };
        Ok(Router::new().on(diarizer))
    })
}
