//! Policies that lose messages, and the one that a worker may rely on.

use serde_json::{Map, Value};

use super::{
    finding::{Finding, State},
    inspection::{Inspection, plain},
    mend::quoted,
};
use crate::{configuration::ConfiguredWorker, management::QueueInfo};

const OBJECT: &str = "policy";

/// A finding for each queue to which a policy applies that matters here; one that says so if nobody tells.
pub(super) async fn inspect(inspection: &Inspection<'_>, worker: &ConfiguredWorker) -> Vec<Finding> {
    let queue = worker.queue();
    let finding = |name: &str, state, text: String| Finding::new(OBJECT, name, state, text);
    let Some(management) = inspection.management else {
        let text = "AMQP does not tell of policies; --management does".to_owned();
        return vec![finding(queue, State::Unknown, text)];
    };
    let mut findings = Vec::new();
    let dead = worker.keeps_dead_letters().then(|| worker.dead_letter_queue());
    for (name, is_dead) in [(queue, false)].into_iter().chain(dead.as_deref().map(|dead| (dead, true))) {
        match management.queue(name).await {
            Err(untold) => findings.push(finding(name, State::Unknown, untold.to_string())),
            Ok(None) => {}
            Ok(Some(told)) => {
                findings.extend(losing(inspection, name, is_dead, &told));
                if !is_dead && !worker.keeps_dead_letters() {
                    findings.push(dead_lettering(inspection, worker, &told));
                }
            }
        }
    }
    if findings.is_empty() {
        findings.push(finding(queue, State::Ok, "none that loses messages".to_owned()));
    }
    findings
}

/// What a policy drops, unless it keeps it elsewhere.
fn losing(inspection: &Inspection<'_>, queue: &str, is_dead: bool, told: &QueueInfo) -> Option<Finding> {
    let policy = &told.effective_policy_definition;
    let drops = drops(policy);
    if drops.is_empty() {
        return None;
    }
    let name = told.policy.as_deref().or(told.operator_policy.as_deref()).unwrap_or("(unnamed)");
    let text = format!("{name} {}", drops.join(" and "));
    Some(if is_dead || !policy.contains_key("dead-letter-exchange") {
        let clear = if told.policy.is_some() { "clear_policy" } else { "clear_operator_policy" };
        let mend = format!("rabbitmqctl {clear} --vhost {} {}", quoted(inspection.vhost()), quoted(name));
        Finding::new(OBJECT, queue, State::Differs, format!("{text}, and nothing keeps it")).mended_by(mend)
    } else {
        let exchange = policy.get("dead-letter-exchange").map(plain).unwrap_or_default();
        Finding::new(OBJECT, queue, State::Notice, format!("{text}, to exchange `{exchange}`"))
    })
}

fn drops(policy: &Map<String, Value>) -> Vec<String> {
    let refuses = policy.get("overflow").is_some_and(|overflow| plain(overflow) == "reject-publish");
    let value = |key: &str| policy.get(key).map(plain);
    [
        value("message-ttl").map(|ttl| format!("drops what waits for longer than {ttl} ms (message-ttl)")),
        value("expires").map(|expires| format!("deletes the queue when it is unused for {expires} ms (expires)")),
        value("max-length")
            .filter(|_| !refuses)
            .map(|most| format!("drops what is beyond {most} messages (max-length)")),
        value("max-length-bytes")
            .filter(|_| !refuses)
            .map(|most| format!("drops what is beyond {most} bytes (max-length-bytes)")),
        value("delivery-limit").map(|limit| format!("drops what was given out {limit} times (delivery-limit)")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `dead_letter: broker` relies on a policy.
fn dead_lettering(inspection: &Inspection<'_>, worker: &ConfiguredWorker, told: &QueueInfo) -> Finding {
    let queue = worker.queue();
    let exchange = told.effective_policy_definition.get("dead-letter-exchange");
    if let Some(exchange) = exchange.or_else(|| told.arguments.get("x-dead-letter-exchange")) {
        return Finding::new(OBJECT, queue, State::Ok, format!("dead letters go to exchange `{}`", plain(exchange)));
    }
    let text = "there is none with dead-letter-exchange, and consumer.dead_letter is broker: what cannot be handled is \
                discarded";
    let dead = format!("{queue}.dead");
    let definition = serde_json::json!({ "dead-letter-exchange": "", "dead-letter-routing-key": dead }).to_string();
    let mend = format!(
        "rabbitmqctl set_policy --vhost {} {} {} {} --apply-to queues",
        quoted(inspection.vhost()),
        quoted(&format!("{queue}-dead-letters")),
        quoted(&format!("^{}$", queue.replace('.', r"\."))),
        quoted(&definition)
    );
    Finding::new(OBJECT, queue, State::Differs, text).mended_by(mend)
}
