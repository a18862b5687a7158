//! How a delivery ends: a closed list, and a pure function that chooses.

use std::time::{Duration, SystemTime};

use crate::{handler::Answers, options::ConsumerOptions};

/// The one way in which a delivery ends.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// Publish the answers, await their confirms, then ack.
    Answer(Answers),
    /// Back into the queue: exhausted, if there is a failure, or else stopped before it was done.
    Requeue(Option<Failure>),
    /// To the dead letters, with the reason.
    DeadLetter(Failure),
}

/// Why a message could not be handled. The names are those of the `jm-error-kind` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FailureKind {
    /// The handler said that it never will succeed, or the broker can never take its answer.
    Permanent,
    /// Every attempt failed.
    Exhausted,
    /// Every attempt failed, the last one by running too long.
    Timeout,
    /// Every attempt failed, the last one by a panic.
    Panic,
    /// The body is not what its type says.
    Undecodable,
    /// No handler for the type, or no type.
    UnknownType,
    /// Larger than `max_body_bytes`.
    TooLarge,
    /// Given out more often than `max_deliveries`: it probably kills its workers.
    Poison,
}

impl FailureKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Permanent,
        Self::Exhausted,
        Self::Timeout,
        Self::Panic,
        Self::Undecodable,
        Self::UnknownType,
        Self::TooLarge,
        Self::Poison,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Exhausted => "exhausted",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown_type",
            Self::TooLarge => "too_large",
            Self::Poison => "poison",
        }
    }

    /// Whether another run might have helped, so that `nack_requeue` decides.
    fn is_retryable(self) -> bool {
        match self {
            Self::Exhausted | Self::Timeout | Self::Panic => true,
            Self::Permanent | Self::Undecodable | Self::UnknownType | Self::TooLarge | Self::Poison => false,
        }
    }
}

/// A failure with what an operator wants to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The last error's text.
    pub(crate) text: String,
    /// Runs of the handler, of which the last failed like this; 0 if it was never run.
    pub(crate) attempts: u32,
    pub(crate) first_failed_at: SystemTime,
}

impl Failure {
    /// A failure before any run.
    pub(crate) fn unrun(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), attempts: 0, first_failed_at: SystemTime::now() }
    }
}

/// What came of a delivery's runs.
#[derive(Debug)]
pub(crate) enum Conclusion {
    Done(Answers),
    Failed(Failure),
    /// Stopped between two runs: the process shuts down, or somebody else has the message now.
    Interrupted,
}

/// The settlement table of the delivery contract.
pub(crate) fn decide(conclusion: Conclusion, options: &ConsumerOptions) -> Settlement {
    match conclusion {
        Conclusion::Done(answers) => Settlement::Answer(answers),
        Conclusion::Failed(failure) if failure.kind.is_retryable() && options.nack_requeue => {
            Settlement::Requeue(Some(failure))
        }
        Conclusion::Failed(failure) => Settlement::DeadLetter(failure),
        Conclusion::Interrupted => Settlement::Requeue(None),
    }
}

/// Until when a delivery has to be started and settled so that the broker does not close its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeBudget {
    /// A delivery that waited longer than this for its worker is handed back.
    pub(crate) start_within: Duration,
    /// A delivery that is unsettled after this is handed back, whether it runs or not.
    pub(crate) settle_within: Duration,
    /// How often to look.
    pub(crate) tick: Duration,
}

impl TimeBudget {
    pub(crate) fn new(options: &ConsumerOptions) -> Self {
        // The broker looks once a minute and never too early; the margin is for our own timers and the way there.
        let margin = (options.consumer_timeout / 10).min(Duration::from_secs(30));
        let settle_within = options.consumer_timeout.saturating_sub(margin);
        // Time for one run; half of the budget if a run may take longer than that, or has no limit.
        let run = options.run_limit().unwrap_or(settle_within).min(settle_within / 2);
        let tick = (margin / 4).min(Duration::from_secs(5));
        Self { start_within: settle_within.saturating_sub(run), settle_within, tick }
    }

    /// What an operator should know at start: options under which deliveries are handed back for lack of time.
    pub(crate) fn warning(options: &ConsumerOptions) -> Option<String> {
        let budget = Self::new(options).settle_within;
        let explain = |why: String| {
            Some(format!(
                "{why}; a delivery that is not settled within {budget:?} (consumer_timeout {:?} less a margin) is handed back \
                 to the queue and may run again elsewhere. Lower handler_timeout, max_retry_attempts or \
                 prefetch_per_worker, or raise consumer_timeout here and on the broker",
                options.consumer_timeout
            ))
        };
        let Some(one) = options.worst_case() else {
            return explain("handler_timeout is 0, so nothing limits a run".into());
        };
        let all = one.saturating_mul(options.prefetch_per_worker.into());
        if all <= budget {
            return None;
        }
        explain(format!(
            "max_retry_attempts {}, handler_timeout {:?} and prefetch_per_worker {} together allow {all:?} for what one \
             worker holds",
            options.max_retry_attempts, options.handler_timeout, options.prefetch_per_worker
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn settled(kind: FailureKind, nack_requeue: bool) -> &'static str {
        let options = ConsumerOptions { nack_requeue, ..ConsumerOptions::default() };
        match decide(Conclusion::Failed(Failure::unrun(kind, "")), &options) {
            Settlement::Answer(_) => "answer",
            Settlement::Requeue(_) => "requeue",
            Settlement::DeadLetter(_) => "dead-letter",
        }
    }

    #[test]
    fn all_kinds_are_listed_once() {
        let labels: HashSet<&str> = FailureKind::ALL.into_iter().map(FailureKind::label).collect();
        assert_eq!(labels.len(), FailureKind::Poison as usize + 1, "the last kind tells how many there are");
    }

    #[test]
    fn exhausted_attempts_follow_nack_requeue() {
        for kind in [FailureKind::Exhausted, FailureKind::Timeout, FailureKind::Panic] {
            assert_eq!((settled(kind, true), settled(kind, false)), ("requeue", "dead-letter"), "{kind:?}");
        }
    }

    #[test]
    fn what_can_never_succeed_is_dead_lettered_whatever_nack_requeue_says() {
        for kind in [
            FailureKind::Permanent,
            FailureKind::Undecodable,
            FailureKind::UnknownType,
            FailureKind::TooLarge,
            FailureKind::Poison,
        ] {
            assert_eq!((settled(kind, true), settled(kind, false)), ("dead-letter", "dead-letter"), "{kind:?}");
        }
    }

    #[test]
    fn the_time_budget_leaves_room_for_one_run() {
        let budget = TimeBudget::new(&ConsumerOptions::default());
        assert_eq!(budget.settle_within, Duration::from_secs(30 * 60 - 30));
        assert_eq!(budget.start_within, Duration::from_secs(25 * 60 - 30));
        let unlimited = ConsumerOptions { handler_timeout: Duration::ZERO, ..ConsumerOptions::default() };
        assert_eq!(TimeBudget::new(&unlimited).start_within, budget.settle_within / 2);
        let short = ConsumerOptions { consumer_timeout: Duration::from_secs(10), ..ConsumerOptions::default() };
        assert_eq!(TimeBudget::new(&short).settle_within, Duration::from_secs(9));
        assert_eq!(TimeBudget::new(&short).start_within, Duration::from_millis(4500));
    }

    #[test]
    fn options_that_cannot_keep_the_budget_are_told_at_start() {
        let warning = TimeBudget::warning(&ConsumerOptions::default()).unwrap();
        assert!(warning.contains("prefetch_per_worker 5") && warning.contains("6035s"), "{warning}");
        let unlimited = ConsumerOptions { handler_timeout: Duration::ZERO, ..ConsumerOptions::default() };
        assert!(TimeBudget::warning(&unlimited).unwrap().contains("handler_timeout is 0"));
        let fitting = ConsumerOptions { prefetch_per_worker: 1, ..ConsumerOptions::default() };
        assert_eq!(TimeBudget::warning(&fitting), None);
    }
}
