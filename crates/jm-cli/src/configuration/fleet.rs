//! The five workers, as their own processes describe themselves. A sixth one is an entry here: only the
//! record-event-worker is a library too, whose own description is taken.

use clap::builder::PossibleValuesParser;
use jm_mq_core::Payload;
use jm_service::Worker;
use jm_tasks::{Chat, Diarize, Embed, Summarize, Title, Transcribe, queue};
pub(crate) use record_event_worker::WORKER as RECORD_EVENT_WORKER;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// In the order of a record's journey.
pub(crate) const FLEET: &[&Worker] = &[&RECORD_EVENT_WORKER, &SD_WORKER, &ASR_WORKER, &EMBED_WORKER, &LLM_WORKER];

pub(crate) const SD_WORKER: Worker = Worker {
    name: "sd-worker",
    about: "",
    version: VERSION,
    queue: queue::SD,
    types: &[Diarize::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../../config/sd-worker.yaml"),
};

pub(crate) const ASR_WORKER: Worker = Worker {
    name: "asr-worker",
    about: "",
    version: VERSION,
    queue: queue::ASR,
    types: &[Transcribe::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../../config/asr-worker.yaml"),
};

pub(crate) const EMBED_WORKER: Worker = Worker {
    name: "embed-worker",
    about: "",
    version: VERSION,
    queue: queue::EMBED,
    types: &[Embed::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../../config/embed-worker.yaml"),
};

pub(crate) const LLM_WORKER: Worker = Worker {
    name: "llm-worker",
    about: "",
    version: VERSION,
    queue: queue::LLM,
    types: &[Chat::TYPE, Summarize::TYPE, Title::TYPE],
    answers_to: &[queue::RECORD_EVENTS],
    defaults: include_str!("../../../../config/llm-worker.yaml"),
};

/// The names that `--worker` takes.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(FLEET.iter().map(|worker| worker.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jm_tasks::CATALOG;

    use super::*;

    #[test]
    fn every_type_of_the_wire_contract_belongs_to_the_worker_of_its_queue() {
        for worker in FLEET {
            let of_queue = CATALOG.iter().filter(|known| known.queue == worker.queue).map(|known| known.name);
            let types: BTreeSet<&str> = worker.types.iter().copied().collect();
            assert_eq!(types, of_queue.collect(), "{}", worker.name);
        }
        let queues: BTreeSet<&str> = FLEET.iter().map(|worker| worker.queue).collect();
        assert_eq!(queues, CATALOG.iter().map(|known| known.queue).collect());
    }
}
