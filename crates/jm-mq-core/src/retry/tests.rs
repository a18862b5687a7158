//! Retry and settlement against a small model, over random outcomes, panics, timeouts and shutdowns; on a paused
//! clock, so that days of backoff take no time.

use std::{sync::Mutex, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{RetryPolicy, RunFailure, Runs, guard, run};
use crate::{
    handler::{Answers, HandlerError},
    options::ConsumerOptions,
    router::RunError,
    settlement::{Conclusion, FailureKind, Settlement, decide},
};

/// What a scripted handler does in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Succeed,
    Fail,
    FailFor(Duration),
    FailForGood,
    Panic,
    /// Longer than any time limit.
    Hang,
    Misread,
}

/// A handler that follows a script, and the record of what was done with it.
struct Scripted {
    script: Vec<Act>,
    limit: Duration,
    /// When waiting between runs becomes pointless.
    shutdown_at: Option<Instant>,
    begun: Instant,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    runs: u32,
    started_at: Vec<Duration>,
    announced: Vec<Option<Duration>>,
}

impl Runs for Scripted {
    async fn once(&self, attempt: u32) -> Result<Answers, RunFailure> {
        {
            let mut record = self.record.lock().unwrap();
            record.runs += 1;
            assert_eq!(record.runs, attempt, "attempts count from 1 without gaps");
            record.started_at.push(self.begun.elapsed());
        }
        let act = self.script[attempt as usize - 1];
        let handler = async move {
            match act {
                Act::Succeed => Ok(Answers::none()),
                Act::Fail => Err(RunError::Handler(HandlerError::retryable("busy"))),
                Act::FailFor(delay) => Err(RunError::Handler(HandlerError::retry_after("busy", delay))),
                Act::FailForGood => Err(RunError::Handler(HandlerError::permanent("wrong"))),
                Act::Panic => panic!("scripted"),
                Act::Hang => std::future::pending().await,
                Act::Misread => Err(RunError::Undecodable("not JSON".into())),
            }
        };
        guard(Some(self.limit), Instant::now(), handler).await
    }

    fn failed(&self, _: u32, _: &RunFailure, next: Option<Duration>) {
        self.record.lock().unwrap().announced.push(next);
    }

    async fn interrupted(&self) {
        match self.shutdown_at {
            Some(moment) => tokio::time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }
}

/// What the contract says must come of a script: how many runs, how it ends, and when each run starts.
#[derive(Debug, PartialEq)]
struct Expected {
    runs: u32,
    end: End,
    started_at: Vec<Duration>,
}

#[derive(Debug, PartialEq)]
enum End {
    Answer,
    Requeue,
    DeadLetter(FailureKind),
}

fn model(script: &[Act], options: &ConsumerOptions, shutdown_after: Option<Duration>) -> Expected {
    let mut now = Duration::ZERO;
    let mut started_at = Vec::new();
    let exhausted = |kind| if options.nack_requeue { End::Requeue } else { End::DeadLetter(kind) };
    for (n, act) in (1..).zip(script) {
        started_at.push(now);
        let end = |end, started_at| Expected { runs: n, end, started_at };
        if *act == Act::Hang {
            now += options.handler_timeout;
        }
        let exponential = options.retry_base_delay.saturating_mul(2_u32.saturating_pow(n - 1));
        let (kind, delay) = match *act {
            Act::Succeed => return end(End::Answer, started_at),
            Act::FailForGood => return end(End::DeadLetter(FailureKind::Permanent), started_at),
            Act::Misread => return end(End::DeadLetter(FailureKind::Undecodable), started_at),
            Act::Fail => (FailureKind::Exhausted, exponential.min(options.retry_max_delay)),
            Act::FailFor(delay) => (FailureKind::Exhausted, delay),
            Act::Panic => (FailureKind::Panic, exponential.min(options.retry_max_delay)),
            Act::Hang => (FailureKind::Timeout, exponential.min(options.retry_max_delay)),
        };
        if n > options.max_retry_attempts {
            return end(exhausted(kind), started_at);
        }
        // A run that has begun is never cut short; the wait after it is.
        if shutdown_after.is_some_and(|moment| moment <= now + delay) {
            return end(End::Requeue, started_at);
        }
        now += delay;
    }
    unreachable!("a script has an act for every attempt")
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Succeed),
        4 => Just(Act::Fail),
        2 => (0_u64..90_000).prop_map(|millis| Act::FailFor(Duration::from_millis(millis))),
        1 => Just(Act::FailForGood),
        2 => Just(Act::Panic),
        2 => Just(Act::Hang),
        1 => Just(Act::Misread),
    ]
}

fn options() -> impl Strategy<Value = ConsumerOptions> {
    (0_u32..7, any::<bool>(), 0_u64..5_000, 0_u64..60_000, 1_u64..120_000).prop_map(
        |(max_retry_attempts, nack_requeue, base, more, timeout)| ConsumerOptions {
            max_retry_attempts,
            nack_requeue,
            retry_base_delay: Duration::from_millis(base),
            retry_max_delay: Duration::from_millis(base + more),
            handler_timeout: Duration::from_millis(timeout),
            ..ConsumerOptions::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn runs_and_settlements_follow_the_contract(
        options in options(),
        script in proptest::collection::vec(acts(), 8),
        shutdown_after in proptest::option::of(0_u64..200_000),
    ) {
        // Half a millisecond off the grid of all other times, so that no two timers are due at once.
        let shutdown_after = shutdown_after.map(|millis| Duration::from_millis(millis) + Duration::from_micros(500));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (conclusion, record) = runtime.block_on(async {
            let begun = Instant::now();
            let scripted = Scripted {
                script: script.clone(),
                limit: options.handler_timeout,
                shutdown_at: shutdown_after.map(|after| begun + after),
                begun,
                record: Mutex::default(),
            };
            (run(&RetryPolicy::new(&options), &scripted).await, scripted.record.into_inner().unwrap())
        });
        if let Conclusion::Failed(failure) = &conclusion {
            prop_assert_eq!(failure.attempts, record.runs);
        }
        let end = match decide(conclusion, &options) {
            Settlement::Answer(_) => End::Answer,
            Settlement::Requeue(_) => End::Requeue,
            Settlement::DeadLetter(failure) => End::DeadLetter(failure.kind),
        };
        prop_assert!(record.runs <= 1 + options.max_retry_attempts);
        let seen = Expected { runs: record.runs, end, started_at: record.started_at };
        prop_assert_eq!(seen, model(&script, &options, shutdown_after));
    }
}

#[tokio::test]
async fn a_panics_message_is_kept() {
    let failure = guard(None, Instant::now(), async { panic!("lost the {}", "plot") }).await.unwrap_err();
    assert_eq!(failure.to_string(), "the handler panicked: lost the plot");
}

/// An error that cannot be printed.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words")
    }
}

impl std::error::Error for Unspeakable {}

/// A value that cannot be dropped.
struct Clingy;

impl Drop for Clingy {
    fn drop(&mut self) {
        panic!("will not go");
    }
}

#[tokio::test(start_paused = true)]
async fn panics_in_an_errors_text_or_a_futures_destructor_are_caught_as_well() {
    let failure = guard(None, Instant::now(), async { Err(RunError::Handler(Unspeakable.into())) }).await.unwrap_err();
    assert_eq!(failure.to_string(), "the handler panicked: no words");
    let hangs = async {
        let _clingy = Clingy;
        std::future::pending().await
    };
    let failure = guard(Some(Duration::from_secs(1)), Instant::now(), hangs).await.unwrap_err();
    assert_eq!(failure.to_string(), "the handler panicked: will not go");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_run_may_take_as_long_as_it_likes() {
    let day = async {
        tokio::time::sleep(Duration::from_hours(24)).await;
        Ok(Answers::none())
    };
    assert!(guard(None, Instant::now(), day).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn of_an_error_that_is_a_whole_document_the_beginning_is_kept() {
    let document = "错".repeat(1_000_000);
    for run in [RunError::Handler(HandlerError::permanent(document.clone())), RunError::Handler(document.into())] {
        let text = guard(None, Instant::now(), async { Err(run) }).await.unwrap_err().to_string();
        // Cut between characters.
        assert_eq!(text, "错".repeat(16 * 1024 / 3));
    }
    let panic = async { panic!("{}", "x".repeat(1_000_000)) };
    let text = guard(None, Instant::now(), panic).await.unwrap_err().to_string();
    assert_eq!(text.len(), "the handler panicked: ".len() + 16 * 1024);
}
