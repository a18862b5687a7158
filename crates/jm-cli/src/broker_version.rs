//! The broker's version, and what follows from it.

use jm_mq_core::Connection;

/// Major and minor number; `0.0` where the broker does not report its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BrokerVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Returns after which a quorum queue of RabbitMQ 4 drops a message, unless a policy or an argument says otherwise.
pub(crate) const DELIVERY_LIMIT_OF_4: u64 = 20;

impl BrokerVersion {
    /// Reads `4.3.0-rc.1`.
    pub(crate) fn read(version: &str) -> Self {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or_default());
        Self { major: numbers.next().unwrap_or_default(), minor: numbers.next().unwrap_or_default() }
    }

    /// As the broker reported it when the connection was opened.
    pub(crate) fn of(connection: &Connection) -> Self {
        Self::read(connection.server_properties().get("version").map_or("", String::as_str))
    }

    /// Whether `basic.nack(requeue)` counts towards a quorum queue's delivery limit. An unknown version may.
    pub(crate) fn counts_requeues(self) -> bool {
        self < Self { major: 4, minor: 3 }
    }

    /// A quorum queue's delivery limit without any policy or argument; `None` is no limit.
    pub(crate) fn default_delivery_limit(self) -> Option<u64> {
        (self.major >= 4).then_some(DELIVERY_LIMIT_OF_4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nack_counts_until_4_2_and_a_limit_exists_from_4_0_on() {
        let of = |version: &str| {
            let version = BrokerVersion::read(version);
            (version.counts_requeues(), version.default_delivery_limit())
        };
        assert_eq!(of("3.10.8"), (true, None));
        assert_eq!(of("4.0.5"), (true, Some(20)));
        assert_eq!(of("4.2.7"), (true, Some(20)));
        assert_eq!(of("4.3.0-rc.1"), (false, Some(20)));
        assert_eq!(of(""), (true, None));
    }
}
