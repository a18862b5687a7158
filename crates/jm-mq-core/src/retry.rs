//! The runs of one delivery: the specification's `handleWithRetry`, up to its outcome.

use std::{
    any::Any,
    fmt::{self, Write as _},
    panic::AssertUnwindSafe,
    pin::pin,
    task::Poll,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::poll_fn};
use tokio::time::{Instant, timeout_at};

use crate::{
    backoff::Backoff,
    handler::{Answers, Retry},
    options::ConsumerOptions,
    router::RunError,
    settlement::{Conclusion, Failure, FailureKind},
};

/// When to run again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    pub(crate) max_retry_attempts: u32,
    pub(crate) backoff: Backoff,
    /// The limit of one run.
    pub(crate) run_limit: Option<Duration>,
}

impl RetryPolicy {
    pub(crate) fn new(options: &ConsumerOptions) -> Self {
        Self {
            max_retry_attempts: options.max_retry_attempts,
            backoff: options.backoff(),
            run_limit: options.run_limit(),
        }
    }
}

/// How one run failed.
#[derive(Debug)]
pub(crate) enum RunFailure {
    /// The handler returned an error, of which the text is kept: an error's own code must not run outside the guard.
    Error { retry: Retry, text: String },
    /// It ran longer than `handler_timeout`, and was dropped.
    Timeout(Duration),
    /// It panicked.
    Panic(String),
    /// It was never run: the body is not what its type says.
    Undecodable(String),
}

impl RunFailure {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Error { retry: Retry::Never, .. } => FailureKind::Permanent,
            Self::Error { .. } => FailureKind::Exhausted,
            Self::Timeout(_) => FailureKind::Timeout,
            Self::Panic(_) => FailureKind::Panic,
            Self::Undecodable(_) => FailureKind::Undecodable,
        }
    }

    /// The wait before the next run; `None` if there must not be one.
    fn delay(&self, attempt: u32, policy: &RetryPolicy) -> Option<Duration> {
        if attempt > policy.max_retry_attempts {
            return None;
        }
        match self {
            Self::Error { retry, .. } => match retry {
                Retry::Backoff => Some(policy.backoff.delay(attempt)),
                Retry::After(delay) => Some(*delay),
                Retry::Never => None,
            },
            Self::Timeout(_) | Self::Panic(_) => Some(policy.backoff.delay(attempt)),
            Self::Undecodable(_) => None,
        }
    }
}

impl fmt::Display for RunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error { text, .. } => f.write_str(text),
            Self::Timeout(limit) => write!(f, "the handler ran longer than handler_timeout ({limit:?})"),
            Self::Panic(text) => write!(f, "the handler panicked: {text}"),
            Self::Undecodable(text) => write!(f, "the body cannot be read: {text}"),
        }
    }
}

/// The runs of one delivery, as its worker makes and watches them.
pub(crate) trait Runs {
    /// Runs the handler once; `attempt` counts from 1.
    fn once(&self, attempt: u32) -> impl Future<Output = Result<Answers, RunFailure>> + Send;

    /// A run failed; `next` is the wait before the next one, if there is one.
    fn failed(&self, attempt: u32, failure: &RunFailure, next: Option<Duration>);

    /// Resolves when waiting for another run has become pointless. Asked for only between runs: a run that has begun
    /// is never stopped by it.
    fn interrupted(&self) -> impl Future<Output = ()> + Send;
}

/// Runs the handler until it succeeds, fails for good, or is interrupted between two runs: at most
/// `1 + max_retry_attempts` times.
pub(crate) async fn run(policy: &RetryPolicy, runs: &impl Runs) -> Conclusion {
    let mut first_failed_at = None;
    let mut attempt = 1;
    loop {
        let failure = match runs.once(attempt).await {
            Ok(answers) => return Conclusion::Done(answers),
            Err(failure) => failure,
        };
        let first_failed_at = *first_failed_at.get_or_insert_with(SystemTime::now);
        let next = failure.delay(attempt, policy);
        runs.failed(attempt, &failure, next);
        let Some(delay) = next else {
            let text = failure.to_string();
            return Conclusion::Failed(Failure { kind: failure.kind(), text, attempts: attempt, first_failed_at });
        };
        tokio::select! {
            biased;
            () = runs.interrupted() => return Conclusion::Interrupted,
            () = tokio::time::sleep(delay) => {}
        }
        attempt += 1;
    }
}

/// One run under its time limit. Whatever of the handler's code panics is caught: its future, the future's destructor
/// after a timeout, its error's text.
///
/// The limit counts from `begun`.
pub(crate) async fn guard(
    limit: Option<Duration>,
    begun: Instant,
    run: impl Future<Output = Result<Answers, RunError>>,
) -> Result<Answers, RunFailure> {
    let guarded = async {
        let mut run = pin!(run);
        // A run that waits for nothing needs no timer.
        let first_poll = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await;
        let finished = match (first_poll, limit) {
            (Poll::Ready(finished), _) => finished,
            (Poll::Pending, None) => run.await,
            (Poll::Pending, Some(limit)) => match timeout_at(begun + limit, run).await {
                Ok(finished) => finished,
                Err(_) => return Err(RunFailure::Timeout(limit)),
            },
        };
        finished.map_err(|error| match error {
            RunError::Handler(error) => RunFailure::Error { retry: error.retry, text: capped(&error) },
            RunError::Undecodable(text) => RunFailure::Undecodable(text),
        })
    };
    // The handler's own state may be poisoned by its panic; ours is not reachable from it.
    match AssertUnwindSafe(guarded).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(RunFailure::Panic(panic_text(panic.as_ref()))),
    }
}

/// The most that is kept of an error's text, for logs, reports and dead letters: some errors are whole documents.
const MAX_ERROR_BYTES: usize = 16 * 1024;

/// The beginning of a text, which is never made as a whole.
fn capped(text: &impl fmt::Display) -> String {
    struct Capped(String);
    impl fmt::Write for Capped {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_ERROR_BYTES - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() <= room { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut capped = Capped(String::new());
    // An error only says that it was cut.
    let _ = write!(capped, "{text}");
    capped.0
}

/// A panic's message, if it is text, as it is for `panic!`, `unwrap` and `expect`.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    capped(&text.unwrap_or("a panic without a message"))
}

#[cfg(test)]
mod tests;
