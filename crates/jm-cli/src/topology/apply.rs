//! `jm topology apply`: declares what is missing, and never touches what exists.

use lapin::{options::QueueBindOptions, types::FieldTable};

use super::{
    exchange,
    finding::{Finding, State},
    inspection::{Inspection, is_operators},
    queue,
};
use crate::{
    amqp::{self, Refusal},
    configuration::ConfiguredWorker,
    failure::Failure,
};

/// Declares what is missing, and says what that was. Whoever asked for a dry run is told, and nothing is done.
pub(super) async fn missing(
    inspection: &Inspection<'_>,
    findings: &[Finding],
    dry_run: bool,
) -> Result<Vec<String>, Failure> {
    let mut declared = Vec::new();
    let state = |object: &str, name: &str| {
        findings.iter().find(|finding| finding.object == object && finding.name == name).map(|finding| finding.state)
    };
    for worker in inspection.operator.configuration.workers.iter().filter(|worker| !is_operators(worker)) {
        let topology = &worker.topology;
        if state("exchange", &topology.exchange) == Some(State::Missing) {
            if !dry_run {
                let done = exchange::declare(inspection, &topology.exchange, topology.exchange_kind, false).await?;
                done.map_err(|refusal| refused("exchange", &topology.exchange, &refusal))?;
            }
            declared.push(format!("exchange {}", topology.exchange));
        }
        let dead = worker.keeps_dead_letters().then(|| worker.dead_letter_queue());
        for name in std::iter::once(worker.queue()).chain(dead.as_deref()) {
            if state("queue", name) == Some(State::Missing) {
                if !dry_run {
                    let done = queue::declare(inspection, name).await?;
                    done.map_err(|refusal| refused("queue", name, &refusal))?;
                }
                declared.push(format!("queue {name}"));
            }
        }
        declared.extend(bind(inspection, worker, &state, dry_run).await?);
    }
    Ok(declared)
}

/// A binding that AMQP does not tell of is made again, which changes nothing if it is there. Nothing is bound to an
/// exchange or a queue that is another one than it should be.
async fn bind(
    inspection: &Inspection<'_>,
    worker: &ConfiguredWorker,
    state: &impl Fn(&str, &str) -> Option<State>,
    dry_run: bool,
) -> Result<Option<String>, Failure> {
    let (exchange, queue, key) = (&worker.topology.exchange, worker.queue(), &worker.topology.routing_key);
    let differs = |object, name| state(object, name) == Some(State::Differs);
    let what = match state("binding", queue) {
        Some(State::Missing) => format!("binding of queue {queue} to exchange {exchange} with key {key}"),
        Some(State::Unknown) => {
            format!("binding of queue {queue} to exchange {exchange} with key {key}, unless it was there")
        }
        _ => return Ok(None),
    };
    if differs("exchange", exchange.as_str()) || differs("queue", queue) {
        return Ok(None);
    }
    if !dry_run {
        let (to, from, with) = (amqp::short(queue)?, amqp::short(exchange)?, amqp::short(key)?);
        let bound = amqp::ask(inspection.connection, "binding a queue", async |channel| {
            channel.queue_bind(to, from, with, QueueBindOptions::default(), FieldTable::default()).await
        });
        bound.await?.map_err(|refusal| refused("binding of queue", queue, &refusal))?;
    }
    Ok(Some(what))
}

fn refused(object: &str, name: &str, Refusal { text, .. }: &Refusal) -> Failure {
    Failure::unavailable(format_args!(
        "RabbitMQ refuses {object} `{name}`: {text}; what was declared before it stays, and `jm topology diff` tells what is left"
    ))
}
