//! `jm record`.

mod fate;

use clap::{Args, Subcommand};
use jm_report::Fates;
use jm_service::{Sections, Settings};
use jm_tasks::RecordId;
use record_event_worker::{DatabaseOptions, RecordView, Store};
use serde::Serialize;

use crate::{
    configuration::{fleet::RECORD_EVENT_WORKER, pass_over},
    exit::Code,
    failure::Failure,
    operator::Operator,
    output::Text,
};

const HELP: &str = "\
The database is the record-event-worker's: database.url of its configuration, or
JM_DATABASE__URL. It is only read. A stage under way is looked for among the dead
letters of its queue, unless a look there would count as a delivery.

Examples:
  jm record show 0199f3c5-7d1e-7c3b-9a63-5f1d2c7b8e90
  jm record show meeting-17 --json | jq .summary.text";

/// A record as it is kept
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(Show),
}

/// All that is stored of a record
#[derive(Debug, Args)]
#[command(after_help = HELP)]
struct Show {
    /// The record's id
    id: String,
}

/// The worker's `database`.
struct Database(DatabaseOptions);

impl Settings for Database {
    fn read(sections: &mut Sections) -> Self {
        for section in ["audio", "engine", "management", "pipeline"] {
            pass_over(sections, section);
        }
        Self(sections.read("database", DatabaseOptions::validate))
    }
}

/// The record, and what is known of each task whose result has not arrived.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    view: &'a RecordView,
    task_fates: &'a Fates,
}

pub(crate) async fn run(arguments: Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let Command::Show(Show { id }) = arguments.command;
    let id = RecordId::new(id).map_err(Failure::usage)?;
    let Database(options) = operator.configuration.settings_of(&RECORD_EVENT_WORKER)?;
    let store = Store::open_existing(&options).map_err(Failure::unavailable)?;
    let unreadable = |error| {
        Failure::unavailable(format_args!(
            "{error}; is database.url the record-event-worker's, and has that been started?"
        ))
    };
    let view = store.record(&id).await.map_err(unreadable)?;
    store.close().await;
    let Some(view) = view else { return Err(Failure::missing(format_args!("no record `{id}` in the database"))) };
    let fates = fate::of_tasks(&view, operator).await;
    if operator.output.is_json() {
        operator.output.json(&Shown { view: &view, task_fates: &fates })?;
    } else {
        // Styles are left out by the output where nobody would see them.
        operator.output.line(Text::page(jm_report::record(&view, &fates, true)));
    }
    Ok(Code::Ok)
}
