//! Looking at all of it, changing nothing.

use jm_mq_core::{Connection, Declare};

use super::{binding, exchange, finding::Finding, permission, policy, queue};
use crate::{
    amqp::Mismatch, configuration::ConfiguredWorker, failure::Failure, management::Management, operator::Operator,
};

/// Whom to ask.
#[derive(Debug)]
pub(crate) struct Inspection<'a> {
    pub(crate) operator: &'a Operator<'a>,
    pub(crate) connection: &'a Connection,
    pub(crate) management: Option<&'a Management>,
}

/// What an exchange or queue is besides what it should be: `durable` is `false`, `x-message-ttl` is `60000`.
pub(super) type Differences = Vec<(String, String)>;

impl<'a> Inspection<'a> {
    pub(crate) fn new(
        operator: &'a Operator<'a>,
        connection: &'a Connection,
        management: Option<&'a Management>,
    ) -> Self {
        Self { operator, connection, management }
    }

    pub(super) fn vhost(&self) -> &str {
        &self.operator.configuration.rabbitmq.vhost
    }
}

/// Everything of all workers that were chosen, in their order.
pub(crate) async fn inspect(inspection: &Inspection<'_>) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for worker in &inspection.operator.configuration.workers {
        findings.extend(exchange::inspect(inspection, worker).await?);
        findings.push(queue::inspect(inspection, worker, worker.queue()).await?);
        findings.extend(binding::inspect(inspection, worker).await);
        if worker.keeps_dead_letters() {
            findings.push(queue::inspect(inspection, worker, &worker.dead_letter_queue()).await?);
        }
        findings.extend(policy::inspect(inspection, worker).await);
        findings.push(permission::inspect(inspection, worker).await?);
    }
    Ok(findings)
}

/// Whether what exists is the operator's own choice.
pub(super) fn is_operators(worker: &ConfiguredWorker) -> bool {
    worker.topology.declare == Declare::Check
}

/// What AMQP has told, with what the management API adds to it. AMQP tells the first difference only; what an argument
/// that AMQP passes over may be is the broker's own matter.
pub(super) fn together(of_amqp: Option<&Mismatch>, of_management: Differences) -> Differences {
    let mut all = of_management;
    if let Some(mismatch) = of_amqp
        && all.iter().all(|(argument, _)| *argument != mismatch.argument)
    {
        all.insert(0, (mismatch.argument.clone(), mismatch.current.clone()));
    }
    all
}

/// A JSON value as the broker's own texts write it.
pub(super) fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
