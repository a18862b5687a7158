//! The records' database: whether it is there, with its tables.

use std::{error::Error as _, time::Duration};

use jm_service::{Sections, Settings};
use jm_tasks::RecordId;
use record_event_worker::{DatabaseOptions, Store, StoreError};
use secrecy::ExposeSecret as _;

use super::check::Check;
use crate::{
    configuration::{fleet, pass_over},
    operator::Operator,
};

const CHECK: &str = "database";
const LIMIT: Duration = Duration::from_secs(10);

struct DatabaseSettings(DatabaseOptions);

impl Settings for DatabaseSettings {
    fn read(sections: &mut Sections) -> Self {
        for section in ["audio", "engine", "management", "pipeline"] {
            pass_over(sections, section);
        }
        Self(sections.read("database", DatabaseOptions::validate))
    }
}

/// Nothing where the worker with the database was not chosen.
pub(super) async fn checks(operator: &Operator<'_>) -> Vec<Check> {
    let worker = &fleet::RECORD_EVENT_WORKER;
    if operator.configuration.workers.iter().all(|chosen| chosen.worker.name != worker.name) {
        return Vec::new();
    }
    let options = match operator.configuration.settings_of::<DatabaseSettings>(worker) {
        Ok(DatabaseSettings(options)) => options,
        Err(failure) => {
            return vec![Check::fail(CHECK, failure.to_string(), format!("{} --check-config", worker.name))];
        }
    };
    let is_default = options.url.expose_secret() == DatabaseOptions::default().url.expose_secret();
    if is_default && !std::path::Path::new("records.db").exists() {
        let text = "database.url is not configured here, and there is no records.db in this folder";
        return vec![Check::unknown(CHECK, text, "JM_DATABASE__URL, as record-event-worker has it")];
    }
    let backend = if options.url.expose_secret().starts_with("sqlite") { "SQLite" } else { "PostgreSQL" };
    vec![match tokio::time::timeout(LIMIT, look(&options)).await {
        Ok(Ok(())) => Check::ok(CHECK, format!("{backend} answers, and has the records' tables")),
        Ok(Err(error)) => {
            Check::fail(CHECK, error, "see database.url; record-event-worker makes the tables when it starts")
        }
        Err(_) => Check::fail(CHECK, format!("{backend} did not answer within {LIMIT:?}"), "see database.url"),
    }]
}

/// Asks for a record that nobody has.
async fn look(options: &DatabaseOptions) -> Result<(), String> {
    let store = Store::open_existing(options).map_err(|error| in_one_line(&error))?;
    let nobodys = RecordId::try_from("jm-doctor-looks-for-nothing".to_owned()).map_err(|error| error.to_string())?;
    let found = store.record(&nobodys).await.map(drop).map_err(|error| in_one_line(&error));
    store.close().await;
    found
}

fn in_one_line(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
