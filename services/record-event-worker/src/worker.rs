//! What the process says of itself: to its frame, and to `jm`.

use jm_mq_core::Payload;
use jm_service::Worker;
use jm_tasks::{Completed, Diarized, Embedded, RecordCreated, RecordDeleted, RecordUpdated, Transcribed, queue};

/// Its name, its queue, what it takes and where its answers go.
pub const WORKER: Worker = Worker {
    name: "record-event-worker",
    about: "Keeps records and what is found out about them, and starts the work on them",
    version: env!("CARGO_PKG_VERSION"),
    queue: queue::RECORD_EVENTS,
    types: &[
        RecordCreated::TYPE,
        RecordUpdated::TYPE,
        RecordDeleted::TYPE,
        Diarized::TYPE,
        Transcribed::TYPE,
        Embedded::TYPE,
        Completed::TYPE,
    ],
    answers_to: &[queue::SD, queue::ASR, queue::EMBED, queue::LLM],
    defaults: include_str!("../../../config/record-event-worker.yaml"),
};
