//! Several attempts at the same thing, begun one after the other, of which the first to succeed counts.
//!
//! RFC 8305's way to an address that answers ("happy eyeballs"): one that is silent holds up the next by no more than a
//! moment.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};

/// Begins the next attempt `stagger` after the one before, or at once when one has failed. Returns the first success,
/// which ends the others; or all errors, in the order of the attempts.
pub(super) async fn race<T, E, F>(attempts: Vec<F>, stagger: Duration) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let mut errors = Vec::new();
    let mut turn = pin!(sleep(Duration::ZERO));
    loop {
        tokio::select! {
            biased;
            Some((index, outcome)) = running.next() => match outcome {
                Ok(success) => return Ok(success),
                Err(error) => {
                    errors.push((index, error));
                    turn.as_mut().reset(Instant::now());
                }
            },
            () = &mut turn, if waiting.len() > 0 => {
                running.extend(waiting.next().map(async |(index, attempt)| (index, attempt.await)));
                turn.as_mut().reset(Instant::now() + stagger);
            }
            else => break,
        }
    }
    errors.sort_unstable_by_key(|(index, _)| *index);
    Err(errors.into_iter().map(|(_, error)| error).collect())
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::Pin};

    use super::*;

    const STAGGER: Duration = Duration::from_millis(250);

    type Attempt = Pin<Box<dyn Future<Output = Result<&'static str, &'static str>>>>;

    fn after(millis: u64, outcome: Result<&'static str, &'static str>) -> Attempt {
        Box::pin(async move {
            sleep(Duration::from_millis(millis)).await;
            outcome
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_first_holds_up_the_second_by_the_stagger() {
        let begun = Instant::now();
        let won =
            race(vec![Box::pin(pending()) as Attempt, after(10, Ok("second")), after(1, Ok("third"))], STAGGER).await;
        assert_eq!((won, begun.elapsed().as_millis() / 10), (Ok("second"), 26));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_begins_the_next_at_once_and_a_late_first_still_wins() {
        let begun = Instant::now();
        assert_eq!(race(vec![after(1, Err("refused")), after(1, Ok("second"))], STAGGER).await, Ok("second"));
        assert!(begun.elapsed() < STAGGER);
        assert_eq!(race(vec![after(300, Ok("first")), after(300, Ok("second"))], STAGGER).await, Ok("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn all_errors_come_back_in_the_order_of_the_attempts() {
        let all = race(vec![after(400, Err("slow")), after(1, Err("quick")), after(9, Err("last"))], STAGGER).await;
        assert_eq!(all, Err(vec!["slow", "quick", "last"]));
        assert_eq!(race(Vec::<Attempt>::new(), STAGGER).await, Err(vec![]));
    }
}
