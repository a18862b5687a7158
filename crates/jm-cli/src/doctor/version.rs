//! The broker's version, and what follows from it for the workers' options.

use super::check::Check;
use crate::configuration::ConfiguredWorker;

/// The most that RabbitMQ 4 takes, unless it is configured otherwise.
const MAX_MESSAGE_OF_4: usize = 16 * 1024 * 1024;
/// Quorum queues of RabbitMQ 4 drop what was given out more often.
const DELIVERY_LIMIT_OF_4: u64 = 20;

pub(super) fn checks(version: &str, workers: &[ConfiguredWorker]) -> Vec<Check> {
    const CHECK: &str = "version";
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let what_follows = match (major, minor) {
        (0, _) => return vec![Check::unknown(CHECK, "the broker does not say its version", "rabbitmqctl version")],
        (..=2, _) | (3, ..=9) => {
            let text = format!("{version}: older than what this is tested with, 3.10 to 4.x");
            return vec![Check::warn(CHECK, text, "upgrade the broker")];
        }
        (3, _) => {
            "no delivery limit; messages up to 128 MiB; a channel is closed after consumer_timeout, 30 min unless set"
        }
        (4, ..=2) => {
            "quorum queues give a message out 20 times; messages up to 16 MiB; a channel is closed after \
             consumer_timeout, 30 min unless set"
        }
        _ => {
            "quorum queues give a message out 20 times, requeues not counted; messages up to 16 MiB; consumers of quorum \
             queues are cancelled after consumer_timeout, 30 min unless set"
        }
    };
    let mut checks = vec![Check::ok(CHECK, format!("{version}: {what_follows}"))];
    for worker in workers.iter().filter(|_| major >= 4) {
        let (queue, options) = (worker.queue(), &worker.consumer);
        if options.max_body_bytes > MAX_MESSAGE_OF_4 {
            let text =
                format!("{queue}: consumer.max_body_bytes is {}, beyond the broker's 16 MiB", options.max_body_bytes);
            checks.push(Check::warn(CHECK, text, "lower it, or raise the broker's max_message_size"));
        }
        if options.max_deliveries >= DELIVERY_LIMIT_OF_4 {
            let text = format!(
                "{queue}: consumer.max_deliveries is {}: the broker drops the message first",
                options.max_deliveries
            );
            checks.push(Check::warn(CHECK, text, "set it below 20, or the queue's delivery-limit above it"));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: &str) -> String {
        checks(version, &[]).remove(0).text
    }

    #[test]
    fn each_version_has_its_own_limits() {
        assert!(told("3.10.8").contains("no delivery limit; messages up to 128 MiB"));
        assert!(told("4.0.5").contains("20 times; messages up to 16 MiB; a channel is closed"));
        assert!(told("4.3.0-rc.1").contains("requeues not counted"));
        assert!(told("3.8.1").contains("older than"));
        assert!(told("").contains("does not say"));
    }
}
