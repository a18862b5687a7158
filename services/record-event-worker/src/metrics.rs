//! What this worker counts besides `jm-mq-core`.

use std::time::Duration;

use jm_tasks::Stage;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::{state::Outcome, store::Store};

/// Record events by what became of them; labels: type, outcome (`applied`, `repeated`, `late`, `deleted`, `no_record`,
/// `not_kept`). Failed attempts are not among them.
pub const RECORD_EVENTS: &str = "jm_record_events_total";
/// Tasks handed to the broker, repeats of the same task included; labels: stage.
pub const FOLLOW_UPS: &str = "jm_record_followups_total";

/// The database's connections in this process; labels: state (`in_use`, `idle`).
pub const DATABASE_CONNECTIONS: &str = "jm_record_database_connections";
/// Connections that the pool may open at most; no labels.
pub const DATABASE_CONNECTIONS_MAX: &str = "jm_record_database_connections_max";

/// As often as the core looks at the age of its deliveries.
const POOL_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the installed recorder every metric's unit and meaning. Call it once, after installing one.
pub fn describe() {
    describe_counter!(RECORD_EVENTS, Unit::Count, "Record events by what became of them");
    describe_counter!(FOLLOW_UPS, Unit::Count, "Tasks started for records, by stage");
    describe_gauge!(DATABASE_CONNECTIONS, Unit::Count, "Connections to the database, by state");
    describe_gauge!(DATABASE_CONNECTIONS_MAX, Unit::Count, "Connections to the database that the pool may open");
}

/// Has every series of these message types there at 0: `increase` does not see the first event of a series that begins
/// with it.
pub fn register(types: &[&'static str]) {
    for message_type in types {
        for outcome in Outcome::ALL {
            counter!(RECORD_EVENTS, "type" => *message_type, "outcome" => outcome.name()).increment(0);
        }
    }
    for stage in Stage::ALL {
        counter!(FOLLOW_UPS, "stage" => stage.name()).increment(0);
    }
}

pub(crate) fn event(message_type: &'static str, outcome: Outcome) {
    counter!(RECORD_EVENTS, "type" => message_type, "outcome" => outcome.name()).increment(1);
}

pub(crate) fn follow_up(stage: Stage) {
    counter!(FOLLOW_UPS, "stage" => stage.name()).increment(1);
}

/// Keeps the gauges of the store's connections until the store is closed.
pub async fn watch_connections(store: Store) {
    let [in_use, idle] = ["in_use", "idle"].map(|state| gauge!(DATABASE_CONNECTIONS, "state" => state));
    let mut ticks = tokio::time::interval(POOL_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(connections) = store.connections() else { break };
        in_use.set(f64::from(connections.in_use));
        idle.set(f64::from(connections.idle));
        gauge!(DATABASE_CONNECTIONS_MAX).set(f64::from(connections.max));
    }
    in_use.set(0.0);
    idle.set(0.0);
}
