//! Record events: kept in a database, and answered with the tasks that follow from them.

use std::process::ExitCode;

use jm_service::{Sections, Service, Settings};
use record_event_worker::{DatabaseOptions, PipelineOptions, RecordEvents, Store, WORKER, metrics};

struct RecordSettings {
    database: DatabaseOptions,
    pipeline: PipelineOptions,
}

impl Settings for RecordSettings {
    fn read(sections: &mut Sections) -> Self {
        Self {
            database: sections.read("database", DatabaseOptions::validate),
            pipeline: sections.read("pipeline", PipelineOptions::validate),
        }
    }
}

fn main() -> ExitCode {
    jm_service::run(&WORKER, async |service: &Service<RecordSettings>| {
        metrics::describe();
        metrics::register(WORKER.types);
        let RecordSettings { database, pipeline } = service.settings();
        // A database that is away comes back; what only a person can mend ends the start.
        let opening = async || match Store::open(database).await {
            Err(error) if error.is_permanent() => Ok(Err(error)),
            opened => opened.map(Ok),
        };
        let store = service.wait_for("the database", opening).await?;
        tokio::spawn(metrics::watch_connections(store.clone()));
        Ok(RecordEvents::new(store, pipeline.clone()).router())
    })
}
