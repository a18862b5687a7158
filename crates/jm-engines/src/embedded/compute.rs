//! Where embedded engines compute: off the async threads, a few calls at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{call::Call, error::EngineError};

/// Runs computations, at most so many at once.
#[derive(Clone, Debug)]
pub(crate) struct Compute {
    permits: Arc<Semaphore>,
    limit: Duration,
}

/// Whether a computation should go on. It has to ask every second or so.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    deadline: Instant,
    /// The engine's own, unless the caller's time is up before.
    limit: Option<Duration>,
    cancellation: CancellationToken,
}

impl Compute {
    /// `parallelism` computations at once, none of them longer than `limit`.
    pub(crate) fn new(parallelism: usize, limit: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(parallelism)), limit }
    }

    /// Runs `work` once there is room for it. Dropping the future, or cancelling the call, stops the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl FnOnce(&Stop) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let cancellation = call.cancellation.child_token();
        let _stops_when_dropped = cancellation.clone().drop_guard();
        let waits = tokio::time::timeout(call.time_left(self.limit), self.permits.clone().acquire_owned());
        let permit = tokio::select! {
            permit = waits => permit.map_err(|_| EngineError::retryable("the engine is busy with other calls"))?,
            () = cancellation.cancelled() => return Err(cancelled()),
        };
        let left = call.time_left(self.limit);
        let limit = (left >= self.limit).then_some(self.limit);
        let stop = Stop { deadline: Instant::now() + left, limit, cancellation };
        let computation = spawn_blocking(move || {
            // Held until the work has ended: it may outlive the one who waits for it by the time between two looks.
            let _permit = permit;
            work(&stop)
        });
        // The runtime is never shut down under its own task, so that only a panic is left: the caller's to count.
        computation.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

impl Stop {
    /// Ends the computation, by `?`, when nobody waits for it any more.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.cancellation.is_cancelled() {
            return Err(cancelled());
        }
        if Instant::now() >= self.deadline {
            return Err(EngineError::retryable(match self.limit {
                Some(limit) => format!("not done within {limit:?}"),
                None => "not done within the task's time".into(),
            }));
        }
        Ok(())
    }

    /// Never stops: for tests of computations.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        let limit = Duration::from_hours(1);
        Self { deadline: Instant::now() + limit, limit: Some(limit), cancellation: CancellationToken::new() }
    }
}

fn cancelled() -> EngineError {
    EngineError::retryable("nobody waits for the answer any more")
}

/// candle's errors are about shapes, kinds of numbers and files: another try would fail the same way, but it is the
/// program that is at fault, not the message.
impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        // Its first line: a backtrace may follow.
        let text = error.to_string();
        Self::operator(format!("the model could not be computed: {}", text.lines().next().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_computation_stops_when_the_one_who_waits_is_gone_and_the_next_one_gets_its_place() {
        let compute = Compute::new(1, Duration::from_mins(1));
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (ended, has_ended) = mpsc::channel();
        let first = tokio::spawn({
            let compute = compute.clone();
            async move {
                compute
                    .run(&Call::default(), move |stop| {
                        _ = started.send(());
                        while stop.check().is_ok() {
                            std::thread::yield_now();
                        }
                        _ = ended.send(());
                        stop.check()
                    })
                    .await
            }
        });
        has_started.await.unwrap();
        first.abort();
        assert_eq!(compute.run(&Call::default(), |_| Ok(7)).await, Ok(7));
        has_ended.try_recv().unwrap();
    }

    #[tokio::test]
    async fn a_computation_ends_at_the_limit_at_the_callers_deadline_and_on_cancellation() {
        let compute = Compute::new(1, Duration::from_millis(20));
        let forever = |stop: &Stop| loop {
            stop.check()?;
            std::thread::yield_now();
        };
        let error = compute.run::<()>(&Call::default(), forever).await.unwrap_err();
        assert_eq!(error, EngineError::retryable("not done within 20ms"));
        let compute = Compute::new(1, Duration::from_hours(1));
        let call = Call { deadline: Some(Instant::now() + Duration::from_millis(20)), ..Call::default() };
        assert!(compute.run::<()>(&call, forever).await.is_err());
        let call = Call::default();
        let (result, ()) = tokio::join!(compute.run::<()>(&call, forever), async { call.cancellation.cancel() });
        assert_eq!(result, Err(cancelled()));
    }

    #[tokio::test]
    #[should_panic(expected = "a bug")]
    async fn a_panic_reaches_the_caller() {
        _ = Compute::new(1, Duration::from_mins(1)).run::<()>(&Call::default(), |_| panic!("a bug")).await;
    }
}
