//! How often a queue takes a message back before the broker drops it, and whether a look counts towards that.
//!
//! A quorum queue counts returned messages. Until RabbitMQ 4.2 `basic.nack(requeue)` counts, the return of a closed channel
//! and the management API's "Get messages" too; there is no way over AMQP 0-9-1 to look without it. Beyond the queue's
//! delivery limit the broker drops the message, or dead-letters it where a policy says so. The limit is known only to the
//! management API: AMQP does not report policies.

use jm_mq_core::Connection;

use crate::{
    amqp,
    broker_version::BrokerVersion,
    failure::Failure,
    management::{Management, QueueInfo},
};

/// What it means for a message to be taken and requeued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// Nothing: it is not counted, or there is no limit.
    Free,
    /// It is counted, and after `limit` times the message is dropped.
    Counted { limit: u64 },
    /// It may be counted, for this reason.
    Unknown(&'static str),
}

impl Looks {
    /// Whether a message that was returned so often may be returned once more, so that at least half of its limit is left
    /// for crashes.
    pub(crate) fn allow_return_after(&self, deliveries: u64) -> bool {
        match self {
            Self::Free => true,
            Self::Counted { limit } => deliveries.saturating_add(1).saturating_mul(2) <= *limit,
            Self::Unknown(_) => false,
        }
    }

    /// Why a queue is not looked into; `None` if it may be.
    pub(crate) fn objection(&self, queue: &str) -> Option<String> {
        match self {
            Self::Free => None,
            Self::Counted { limit } => Some(format!(
                "`{queue}`: each look counts as a delivery, and the broker drops a message after {limit}; a policy with \
                 delivery-limit -1 keeps dead letters (`jm topology diff` prints the command)"
            )),
            Self::Unknown(why) => Some(format!("`{queue}`: a look may count as a delivery: {why}")),
        }
    }
}

/// Asks the broker and, where there is one, its management API.
pub(crate) async fn looks(
    connection: &Connection,
    management: Option<&Management>,
    queue: &str,
) -> Result<Looks, Failure> {
    let version = BrokerVersion::of(connection);
    if !version.counts_requeues() {
        return Ok(Looks::Free);
    }
    // What it does not report is as unknown as without it.
    let info = match management {
        Some(management) => management.queue(queue).await.ok().flatten(),
        None => None,
    };
    let kind = match info.as_ref().and_then(|info| info.kind.clone()) {
        Some(kind) => Some(kind),
        None => amqp::queue_type(connection, amqp::short(queue)?).await?,
    };
    Ok(match (kind.as_deref(), info) {
        (Some("classic"), _) => Looks::Free,
        (Some("quorum"), Some(info)) => match limit(version, &info) {
            Some(Limit::None) => Looks::Free,
            Some(Limit::After(limit)) => Looks::Counted { limit },
            None => Looks::Unknown("the management API does not report the queue's policy yet"),
        },
        (Some("quorum"), None) => {
            Looks::Unknown("it is a quorum queue, and AMQP does not report its delivery limit; --management does")
        }
        (Some(_), _) => Looks::Unknown("it is neither a classic nor a quorum queue"),
        (None, _) => Looks::Unknown("AMQP does not report the queue's type to this user; --management does"),
    })
}

/// A quorum queue's delivery limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Messages are returned as often as anybody likes.
    None,
    /// Dropped, or dead-lettered, when returned more often.
    After(u64),
}

/// The limit that holds for a quorum queue, by its policy, its argument, and the broker's default. `None` while the
/// management API has no statistics of a new queue, by which it reports the policy.
pub(crate) fn limit(version: BrokerVersion, info: &QueueInfo) -> Option<Limit> {
    let policy = info.effective_policy_definition.as_ref()?.get("delivery-limit").and_then(serde_json::Value::as_i64);
    let argument = info.arguments.get("x-delivery-limit").and_then(serde_json::Value::as_i64);
    let limit = match (policy, argument) {
        // As the broker has it: -1 yields to the other, else the smaller one holds.
        (Some(policy), Some(argument)) if policy < 0 || argument < 0 => Some(policy.max(argument)),
        (Some(policy), Some(argument)) => Some(policy.min(argument)),
        (policy, argument) => policy.or(argument),
    };
    Some(match limit {
        Some(limit) => u64::try_from(limit).map_or(Limit::None, Limit::After),
        None => version.default_delivery_limit().map_or(Limit::None, Limit::After),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_an_argument_and_the_brokers_default_make_one_limit() {
        let of = |version: &str, policy: serde_json::Value, arguments: serde_json::Value| {
            let info = json!({ "effective_policy_definition": policy, "arguments": arguments });
            limit(BrokerVersion::read(version), &serde_json::from_value(info).unwrap())
        };
        assert_eq!(of("3.10.8", json!({}), json!({})), Some(Limit::None));
        assert_eq!(of("4.0.5", json!([]), json!([])), Some(Limit::After(20)));
        assert_eq!(of("4.0.5", json!({ "delivery-limit": -1 }), json!({})), Some(Limit::None));
        assert_eq!(
            of("4.0.5", json!({ "delivery-limit": 50 }), json!({ "x-delivery-limit": 9 })),
            Some(Limit::After(9))
        );
        assert_eq!(
            of("4.0.5", json!({ "delivery-limit": -1 }), json!({ "x-delivery-limit": 9 })),
            Some(Limit::After(9))
        );
        assert_eq!(of("3.10.8", json!({ "delivery-limit": 5 }), json!({})), Some(Limit::After(5)));
        let new: QueueInfo = serde_json::from_value(json!({ "arguments": {} })).unwrap();
        assert_eq!(limit(BrokerVersion::read("4.0.5"), &new), None);
    }

    #[test]
    fn half_of_a_limit_is_left_for_crashes() {
        let twenty = Looks::Counted { limit: 20 };
        assert!(twenty.allow_return_after(9) && !twenty.allow_return_after(10));
        assert!(!Looks::Counted { limit: 1 }.allow_return_after(0));
        assert!(!Looks::Unknown("").allow_return_after(0) && Looks::Free.allow_return_after(u64::MAX));
    }
}
