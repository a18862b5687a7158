//! The binding of a worker's queue to its exchange, which only the management API shows.

use super::{
    finding::{Finding, State},
    inspection::Inspection,
    mend,
};
use crate::configuration::ConfiguredWorker;

const OBJECT: &str = "binding";

/// Nothing for the default exchange, to which every queue is bound. Also what else is bound there.
pub(super) async fn inspect(inspection: &Inspection<'_>, worker: &ConfiguredWorker) -> Vec<Finding> {
    let (exchange, queue, key) = (&worker.topology.exchange, worker.queue(), &worker.topology.routing_key);
    if exchange.is_empty() {
        return Vec::new();
    }
    let finding = |state, text: String| Finding::new(OBJECT, queue, state, text);
    let Some(management) = inspection.management else {
        let text = "AMQP does not tell of bindings; --management does, and `jm topology apply` makes sure of it";
        return vec![finding(State::Unknown, text.to_owned())];
    };
    let bindings = match management.bindings(exchange).await {
        Ok(bindings) => bindings,
        Err(untold) => return vec![finding(State::Unknown, untold.to_string())],
    };
    let is_ours = |binding: &&crate::management::BindingInfo| {
        binding.destination_type == "queue" && binding.destination == queue && binding.routing_key == *key
    };
    let mut findings = Vec::new();
    findings.push(if bindings.iter().any(|binding| is_ours(&binding)) {
        finding(State::Ok, format!("to exchange {exchange} with key {key}"))
    } else {
        finding(
            State::Missing,
            format!("to exchange {exchange} with key {key} is not there: messages are lost or refused"),
        )
        .mended_by(mend::missing(worker))
    });
    for other in bindings.iter().filter(|binding| !is_ours(binding)) {
        let (kind, name, key) = (&other.destination_type, &other.destination, &other.routing_key);
        let text = format!("exchange {exchange} also sends messages with key {key} to {kind} {name}");
        findings.push(finding(State::Notice, text));
    }
    findings
}
