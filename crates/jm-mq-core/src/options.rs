//! How a consumer works: the specification's `StartOptions`, and what it leaves open.

use std::{collections::BTreeMap, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};

use crate::{backoff::Backoff, error::OptionsError, settlement::TimeBudget};

/// A consumer's options. The first seven are the specification's, with the values of its example as defaults.
///
/// Durations are written as in `1s`, `500ms`, `5m`, `1h 30m`. [`validate`](Self::validate) runs in
/// [`Consumer::new`](crate::Consumer::new): an option out of range is an error that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerOptions {
    /// `Concurrency`: workers, each with its own channel, each with one message at a time. Default 10.
    pub concurrency: usize,
    /// `PrefetchPerWorker`: unsettled deliveries the broker sends ahead to one worker. Default 5.
    ///
    /// Ahead of slow work it only makes messages wait behind each other: use 1 where a task takes seconds.
    pub prefetch_per_worker: u16,
    /// `MaxRetryAttempts`: runs after the first failed one. Default 3, so four runs in all.
    pub max_retry_attempts: u32,
    /// `RetryBaseDelay`: the wait before the first retry; doubles with each further one. Default 1 s.
    #[serde(with = "duration")]
    pub retry_base_delay: Duration,
    /// `RetryMaxDelay`: the longest wait between retries. Default 30 s.
    #[serde(with = "duration")]
    pub retry_max_delay: Duration,
    /// `NackRequeue`: what becomes of a message whose attempts are exhausted. `true` puts it back into the queue,
    /// where it starts again: **a message that can never succeed then circles for ever**. `false` dead-letters it.
    /// Default `true`, the specification's example; prefer `false` where nobody watches.
    pub nack_requeue: bool,
    /// `HandlerTimeout`: the longest a single run may take; 0 means no limit. Default 5 min.
    #[serde(with = "duration")]
    pub handler_timeout: Duration,

    /// The wait before the first reconnect. It grows to [`reconnect_max_delay`](Self::reconnect_max_delay), is
    /// jittered, and starts again once a connection has held for 5 s. Default 50 ms: most losses are a node's restart
    /// behind a load balancer.
    #[serde(with = "duration")]
    pub reconnect_delay: Duration,
    /// The longest wait between reconnects. Default 300 ms: work resumes within a second of the broker's return.
    #[serde(with = "duration")]
    pub reconnect_max_delay: Duration,
    /// The wait after an error that only a person can mend: refused credentials, a queue that exists with other
    /// arguments. Default 15 s.
    #[serde(with = "duration")]
    pub refused_delay: Duration,
    /// How long running handlers may take to finish at shutdown before their messages are requeued. Default 25 s:
    /// below Kubernetes' default grace period of 30 s.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Where messages go that cannot be handled. Default [`DeadLetter::Queue`].
    pub dead_letter: DeadLetter,
    /// The queue for [`DeadLetter::Queue`]. Default `<queue>.dead`, or `<exchange>.dead` where the broker names the queue.
    pub dead_letter_queue: Option<String>,
    /// Larger bodies are dead-lettered unread, in bytes. Default 16 MiB, the most that RabbitMQ 4 takes.
    pub max_body_bytes: usize,
    /// Bodies that are worked on at a time, in bytes together; one that is larger is worked on alone. Default 32 MiB.
    ///
    /// A body in work is in memory several times. So this, and not [`concurrency`](Self::concurrency), limits what
    /// large ones take; the usual small ones never wait for it.
    pub max_bytes_in_work: usize,
    /// The broker's `consumer_timeout`: a delivery unsettled for longer costs its channel. Default 30 min, the broker's.
    ///
    /// Deliveries that cannot be finished in time are handed back before; set it to what the broker is set to. From RabbitMQ
    /// 4.3 on it is announced to quorum queues (`x-consumer-timeout`), and what the broker is set to does not matter there.
    #[serde(with = "duration")]
    pub consumer_timeout: Duration,
    /// A message whose consumer was lost more often than this while it held it, as quorum queues count, is dead-lettered
    /// unrun: it probably kills its worker. Returns by a worker do not count. Default 15: below the limit of 20 at which
    /// RabbitMQ 4 itself drops it.
    pub max_deliveries: u64,
    /// How often the queue's backlog is asked for. Default 15 s, a usual scrape interval.
    #[serde(with = "duration")]
    pub backlog_interval: Duration,
    /// Type names of existing producers, and the registered names they mean: `summary: llm.summarize`.
    pub type_aliases: BTreeMap<String, String>,
}

/// Where a message goes that cannot be handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetter {
    /// A copy with the reason in its headers goes to the dead-letter queue; once that is confirmed, the original is
    /// acked. Loses nothing, with or without policies on the broker.
    #[default]
    Queue,
    /// `nack(requeue=false)`, as the specification has it: the queue's dead-letter policy decides. **Without a policy
    /// the broker discards the message.**
    Broker,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            concurrency: 10,
            prefetch_per_worker: 5,
            max_retry_attempts: 3,
            retry_base_delay: Duration::from_secs(1),
            retry_max_delay: Duration::from_secs(30),
            nack_requeue: true,
            handler_timeout: Duration::from_mins(5),
            reconnect_delay: Duration::from_millis(50),
            reconnect_max_delay: Duration::from_millis(300),
            refused_delay: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(25),
            dead_letter: DeadLetter::Queue,
            dead_letter_queue: None,
            max_body_bytes: 16 * 1024 * 1024,
            max_bytes_in_work: 32 * 1024 * 1024,
            consumer_timeout: Duration::from_mins(30),
            max_deliveries: 15,
            backlog_interval: Duration::from_secs(15),
            type_aliases: BTreeMap::new(),
        }
    }
}

/// The longest duration any option may have: what is longer is a typing error.
const MAX_DURATION: Duration = Duration::from_hours(24);
/// AMQP's limit for a name.
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// Below the 2047 channels that RabbitMQ allows on a connection by default.
const MAX_CONCURRENCY: usize = 1000;
/// The largest message any RabbitMQ accepts (3.x; 4.x: 16 MiB by default, 512 MiB at most by configuration).
const MAX_BODY_BYTES: usize = 512 * 1024 * 1024;

/// More is no limit.
const MAX_BYTES_IN_WORK: usize = 1024 * 1024 * 1024;

impl ConsumerOptions {
    /// What an operator should know: that these options allow deliveries to be handed back for lack of time, since the
    /// broker's [`consumer_timeout`](Self::consumer_timeout) is too short for them. `None` if all fits.
    pub fn time_warning(&self) -> Option<String> {
        TimeBudget::warning(self)
    }

    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        check((1..=MAX_CONCURRENCY).contains(&self.concurrency), "concurrency", self.concurrency, "1 to 1000")?;
        check(self.prefetch_per_worker > 0, "prefetch_per_worker", self.prefetch_per_worker, "1 to 65535")?;
        check(self.max_retry_attempts <= 1000, "max_retry_attempts", self.max_retry_attempts, "0 to 1000")?;
        for (option, value) in [
            ("retry_base_delay", self.retry_base_delay),
            ("retry_max_delay", self.retry_max_delay),
            ("handler_timeout", self.handler_timeout),
            ("drain_timeout", self.drain_timeout),
        ] {
            check_duration(option, value, Duration::ZERO)?;
        }
        for (option, value) in [
            ("reconnect_delay", self.reconnect_delay),
            ("reconnect_max_delay", self.reconnect_max_delay),
            ("refused_delay", self.refused_delay),
            ("backlog_interval", self.backlog_interval),
        ] {
            check_duration(option, value, Duration::from_millis(1))?;
        }
        check_duration("consumer_timeout", self.consumer_timeout, Duration::from_secs(1))?;
        check(
            self.retry_base_delay <= self.retry_max_delay,
            "retry_base_delay",
            format_args!("{:?}", self.retry_base_delay),
            format!("at most retry_max_delay, which is {:?}", self.retry_max_delay),
        )?;
        check(
            self.reconnect_delay <= self.reconnect_max_delay,
            "reconnect_delay",
            format_args!("{:?}", self.reconnect_delay),
            format!("at most reconnect_max_delay, which is {:?}", self.reconnect_max_delay),
        )?;
        check(
            (1..=MAX_BODY_BYTES).contains(&self.max_body_bytes),
            "max_body_bytes",
            self.max_body_bytes,
            "1 to 536870912 (512 MiB)",
        )?;
        check(
            (1..=MAX_BYTES_IN_WORK).contains(&self.max_bytes_in_work),
            "max_bytes_in_work",
            self.max_bytes_in_work,
            "1 to 1073741824 (1 GiB)",
        )?;
        check(self.max_deliveries > 0, "max_deliveries", self.max_deliveries, "1 or more")?;
        self.dead_letter_queue.as_deref().map_or(Ok(()), |queue| check_name("dead_letter_queue", queue))?;
        self.type_aliases.keys().try_for_each(|alias| check_name("type_aliases", alias))
    }

    /// The backoff between the runs of one delivery.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(self.retry_base_delay, self.retry_max_delay)
    }

    /// The limit of one run; `None` without one.
    pub(crate) fn run_limit(&self) -> Option<Duration> {
        (!self.handler_timeout.is_zero()).then_some(self.handler_timeout)
    }

    /// The longest that one delivery can take from its first run to its settlement; `None` if nothing limits it.
    pub fn worst_case(&self) -> Option<Duration> {
        let runs = self.run_limit()?.saturating_mul(self.max_retry_attempts.saturating_add(1));
        let waits = (1..=self.max_retry_attempts).map(|attempt| self.backoff().delay(attempt));
        Some(waits.fold(runs, Duration::saturating_add))
    }
}

pub(crate) fn check(
    right: bool,
    option: &'static str,
    value: impl std::fmt::Display,
    allowed: impl Into<std::borrow::Cow<'static, str>>,
) -> Result<(), OptionsError> {
    if right { Ok(()) } else { Err(OptionsError::new(option, value, allowed)) }
}

pub(crate) fn check_duration(option: &'static str, value: Duration, least: Duration) -> Result<(), OptionsError> {
    check(
        (least..=MAX_DURATION).contains(&value),
        option,
        format_args!("{value:?}"),
        format!("{least:?} to {MAX_DURATION:?}"),
    )
}

pub(crate) fn check_name(option: &'static str, name: &str) -> Result<(), OptionsError> {
    let shown: String = name.chars().take(40).collect();
    check(!name.is_empty(), option, "empty", "1 to 255 bytes")?;
    check(
        name.len() <= MAX_NAME_BYTES,
        option,
        format_args!("`{shown}…` ({} bytes)", name.len()),
        "1 to 255 bytes, AMQP's limit for a name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut ConsumerOptions);

    fn rejected(change: impl FnOnce(&mut ConsumerOptions)) -> String {
        let mut options = ConsumerOptions::default();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_the_specifications_example_and_valid() {
        let options = ConsumerOptions::default();
        options.validate().unwrap();
        assert_eq!((options.concurrency, options.prefetch_per_worker, options.max_retry_attempts), (10, 5, 3));
        assert_eq!(options.retry_base_delay, Duration::from_secs(1));
        assert_eq!(options.retry_max_delay, Duration::from_secs(30));
        assert!(options.nack_requeue);
        assert_eq!(options.handler_timeout, Duration::from_mins(5));
        assert_eq!(options.worst_case(), Some(Duration::from_mins(20) + Duration::from_secs(7)));
    }

    #[test]
    fn every_option_out_of_range_is_an_error_that_names_option_value_and_range() {
        assert_eq!(rejected(|o| o.concurrency = 0), "option `concurrency` is 0; allowed: 1 to 1000");
        assert_eq!(rejected(|o| o.concurrency = 1001), "option `concurrency` is 1001; allowed: 1 to 1000");
        assert_eq!(
            rejected(|o| o.retry_base_delay = Duration::from_secs(31)),
            "option `retry_base_delay` is 31s; allowed: at most retry_max_delay, which is 30s"
        );
        assert_eq!(
            rejected(|o| o.handler_timeout = Duration::from_hours(25)),
            "option `handler_timeout` is 90000s; allowed: 0ns to 86400s"
        );

        let named: [(&str, Change); 12] = [
            ("prefetch_per_worker", |o| o.prefetch_per_worker = 0),
            ("max_retry_attempts", |o| o.max_retry_attempts = 1001),
            ("reconnect_delay", |o| o.reconnect_delay = Duration::ZERO),
            ("reconnect_delay", |o| o.reconnect_delay = Duration::from_secs(1)),
            ("refused_delay", |o| o.refused_delay = Duration::ZERO),
            ("backlog_interval", |o| o.backlog_interval = Duration::ZERO),
            ("consumer_timeout", |o| o.consumer_timeout = Duration::ZERO),
            ("max_body_bytes", |o| o.max_body_bytes = 0),
            ("max_bytes_in_work", |o| o.max_bytes_in_work = 0),
            ("max_deliveries", |o| o.max_deliveries = 0),
            ("dead_letter_queue", |o| o.dead_letter_queue = Some("q".repeat(256))),
            ("type_aliases", |o| _ = o.type_aliases.insert(String::new(), "t".into())),
        ];
        for (option, change) in named {
            let error = rejected(change);
            assert!(error.starts_with(&format!("option `{option}` is ")), "{error}");
        }
    }

    #[test]
    fn options_are_read_with_durations_in_words_and_unknown_keys_are_refused() {
        let options: ConsumerOptions = serde_json::from_str(
            r#"{"retry_base_delay": "500ms", "handler_timeout": "1h 30m", "dead_letter": "broker"}"#,
        )
        .unwrap();
        assert_eq!(options.retry_base_delay, Duration::from_millis(500));
        assert_eq!(options.handler_timeout, Duration::from_mins(90));
        assert_eq!(options.dead_letter, DeadLetter::Broker);
        let error = serde_json::from_str::<ConsumerOptions>(r#"{"concurency": 3}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `concurency`"), "{error}");
    }
}
