//! Policies by their effect on this broker: those that lose messages, and those that a queue needs to keep them.

use serde_json::{Map, Value, json};

use super::{
    finding::{Finding, State},
    inspection::{Inspection, plain},
    mend::{Remedy, pattern, quoted},
};
use crate::{
    broker_version::BrokerVersion,
    configuration::ConfiguredWorker,
    delivery_limit::{self, Limit},
    management::QueueInfo,
};

const OBJECT: &str = "policy";
/// The policy for all queues with dead letters, as `k8s/components/rabbitmq` has it: name and pattern.
const DEAD_LETTERS: (&str, &str) = ("jm.dead", r"^jm\..+\.dead$");

/// A queue, and what its policies come to.
struct Judged<'a> {
    inspection: &'a Inspection<'a>,
    worker: &'a ConfiguredWorker,
    queue: &'a str,
    /// Whether it holds dead letters.
    is_dead: bool,
    info: &'a QueueInfo,
    policy: &'a Map<String, Value>,
}

/// A finding for each queue to which a policy applies that matters here, or for which one is missing; one that says so if
/// the policies are not known.
pub(super) async fn inspect(inspection: &Inspection<'_>, worker: &ConfiguredWorker) -> Vec<Finding> {
    let queue = worker.queue();
    let finding = |name: &str, state, text: String| Finding::new(OBJECT, name, state, text);
    let Some(management) = inspection.management else {
        let text = "AMQP does not tell of policies; --management does".to_owned();
        return vec![finding(queue, State::Unknown, text)];
    };
    let mut findings = Vec::new();
    let dead = worker.dead_letter_queue();
    for (name, is_dead) in [(queue, false), (dead.as_str(), true)] {
        match management.queue(name).await {
            Err(untold) => findings.push(finding(name, State::Unknown, untold.to_string())),
            Ok(None) => {}
            // What a quorum queue drops depends on its policy, which is reported some seconds after the queue itself.
            Ok(Some(QueueInfo { effective_policy_definition: None, kind: Some(kind), .. })) if kind == "quorum" => {
                let text = "a new queue's policy is reported with its next statistics, in some seconds".to_owned();
                findings.push(finding(name, State::Unknown, text));
            }
            Ok(Some(info)) => {
                let policy = &info.effective_policy_definition.clone().unwrap_or_default();
                let judged = Judged { inspection, worker, queue: name, is_dead, info: &info, policy };
                findings.extend(judged.losing());
                findings.extend(judged.delivery_limit());
                if !is_dead && !worker.keeps_dead_letters() {
                    findings.push(judged.dead_lettering());
                }
            }
        }
    }
    if findings.is_empty() {
        findings.push(finding(queue, State::Ok, "none that loses messages".to_owned()));
    }
    findings
}

impl Judged<'_> {
    fn finding(&self, state: State, text: impl Into<String>) -> Finding {
        Finding::new(OBJECT, self.queue, state, text)
    }

    fn dead_letter_exchange(&self) -> Option<String> {
        let exchange = self.policy.get("dead-letter-exchange");
        exchange.or_else(|| self.info.arguments.get("x-dead-letter-exchange")).map(plain)
    }

    /// Whether what the broker gives up goes to the worker's own dead letters.
    fn keeps_in_dead_letter_queue(&self) -> bool {
        let key = self.policy.get("dead-letter-routing-key");
        let key = key.or_else(|| self.info.arguments.get("x-dead-letter-routing-key")).map(plain);
        self.dead_letter_exchange().as_deref() == Some("") && key == Some(self.worker.dead_letter_queue())
    }

    /// What a policy drops, unless it keeps it elsewhere.
    fn losing(&self) -> Option<Finding> {
        let drops = drops(self.policy);
        if drops.is_empty() {
            return None;
        }
        let name = self.info.policy.as_deref().or(self.info.operator_policy.as_deref()).unwrap_or("(unnamed)");
        let text = format!("{name} {}", drops.join(" and "));
        Some(match self.dead_letter_exchange().filter(|_| !self.is_dead) {
            None => {
                let clear = if self.info.policy.is_some() { "clear_policy" } else { "clear_operator_policy" };
                let vhost = quoted(self.inspection.vhost());
                let mend = format!("rabbitmqctl {clear} --vhost {vhost} {}", quoted(name));
                self.finding(State::Differs, format!("{text}, and nothing keeps it")).mended_by(Remedy::Command(mend))
            }
            Some(exchange) => self.finding(State::Notice, format!("{text}, to exchange `{exchange}`")),
        })
    }

    /// What becomes of a message that a quorum queue took back too often.
    fn delivery_limit(&self) -> Option<Finding> {
        if self.info.kind.as_deref() != Some("quorum") {
            return None;
        }
        let version = BrokerVersion::of(self.inspection.connection);
        let Some(Limit::After(limit)) = delivery_limit::limit(version, self.info) else { return None };
        let drops = format!("a message that was returned more than {limit} times is dropped (delivery-limit)");
        if self.is_dead {
            let text = format!("{drops}, and nothing keeps it: dead letters need a policy with delivery-limit -1");
            let mend = if version.default_delivery_limit().is_some() {
                let (name, pattern) = DEAD_LETTERS;
                let pattern = if is_usual(self.queue) { pattern.to_owned() } else { exactly(self.queue) };
                self.set_policy(name, &pattern, &json!({ "delivery-limit": -1 }))
            } else {
                // RabbitMQ 3 has no limit of its own, and refuses -1.
                let name = self.info.policy.as_deref().unwrap_or("(unnamed)");
                format!("rabbitmqctl clear_policy --vhost {} {}", quoted(self.inspection.vhost()), quoted(name))
            };
            return Some(self.finding(State::Differs, text).mended_by(Remedy::Command(mend)));
        }
        if self.keeps_in_dead_letter_queue() {
            let most = self.worker.consumer.max_deliveries;
            let text = format!(
                "the broker dead-letters a message that was returned more than {limit} times, before \
                 consumer.max_deliveries, {most}: its dead letter has no error's text"
            );
            return (most > limit).then(|| self.finding(State::Notice, text));
        }
        if let Some(exchange) = self.dead_letter_exchange() {
            let text = format!("a message that was returned more than {limit} times goes to exchange `{exchange}`");
            return Some(self.finding(State::Notice, text));
        }
        let definition = json!({
            "delivery-limit": limit,
            "dead-letter-exchange": "",
            "dead-letter-routing-key": self.worker.dead_letter_queue(),
            "dead-letter-strategy": "at-least-once",
            "overflow": "reject-publish",
        });
        let mend = self.set_policy(self.queue, &exactly(self.queue), &definition);
        Some(self.finding(State::Differs, format!("{drops}, and nothing keeps it")).mended_by(Remedy::Command(mend)))
    }

    /// `dead_letter: broker` relies on a policy.
    fn dead_lettering(&self) -> Finding {
        if let Some(exchange) = self.dead_letter_exchange() {
            return self.finding(State::Ok, format!("dead letters go to exchange `{exchange}`"));
        }
        let text = "there is none with dead-letter-exchange, and consumer.dead_letter is broker: what cannot be handled is \
                    discarded";
        let dead = self.worker.dead_letter_queue();
        let definition = json!({ "dead-letter-exchange": "", "dead-letter-routing-key": dead });
        let name = format!("{}-dead-letters", self.queue);
        let mend = self.set_policy(&name, &exactly(self.queue), &definition);
        self.finding(State::Differs, text).mended_by(Remedy::Command(mend))
    }

    /// The command for a policy. Only one applies to a queue: what the present one has besides is kept.
    fn set_policy(&self, name: &str, pattern: &str, more: &Value) -> String {
        let mut definition = self.policy.clone();
        definition.extend(more.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        let priority =
            if self.info.policy.as_deref().is_none_or(|policy| policy == name) { "" } else { " --priority 1" };
        format!(
            "rabbitmqctl set_policy --vhost {} {} {} {} --apply-to queues{priority}",
            quoted(self.inspection.vhost()),
            quoted(name),
            quoted(pattern),
            quoted(&Value::Object(definition).to_string())
        )
    }
}

/// Whether the pattern for all dead letters matches it.
fn is_usual(queue: &str) -> bool {
    queue.strip_prefix("jm.").and_then(|rest| rest.strip_suffix(".dead")).is_some_and(|name| !name.is_empty())
}

/// The pattern of this queue alone.
fn exactly(queue: &str) -> String {
    format!("^{}$", pattern(queue))
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
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_one_queue_matches_nothing_else() {
        assert_eq!(exactly("jm.asr.dead"), r"^jm\.asr\.dead$");
        assert_eq!(exactly("a(b)"), r"^a\(b\)$");
        assert!(is_usual("jm.asr.dead") && is_usual("jm.a.b.dead") && !is_usual("jm..dead.x") && !is_usual("jm.dead"));
    }
}
