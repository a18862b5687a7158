//! What this worker counts besides `jm-mq-core`.

use jm_tasks::Stage;
use metrics::{Unit, counter, describe_counter};

use crate::state::Outcome;

/// Record events by what became of them; labels: type, outcome (`applied`, `repeated`, `late`, `deleted`, `no_record`,
/// `not_kept`). Failed attempts are not among them.
pub const RECORD_EVENTS: &str = "jm_record_events_total";
/// Tasks handed to the broker, repeats of the same task included; labels: stage.
pub const FOLLOW_UPS: &str = "jm_record_followups_total";

/// Tells the installed recorder every metric's unit and meaning. Call it once, after installing one.
pub fn describe() {
    describe_counter!(RECORD_EVENTS, Unit::Count, "Record events by what became of them");
    describe_counter!(FOLLOW_UPS, Unit::Count, "Tasks started for records, by stage");
}

pub(crate) fn event(message_type: &'static str, outcome: Outcome) {
    counter!(RECORD_EVENTS, "type" => message_type, "outcome" => outcome.name()).increment(1);
}

pub(crate) fn follow_up(stage: Stage) {
    counter!(FOLLOW_UPS, "stage" => stage.name()).increment(1);
}
