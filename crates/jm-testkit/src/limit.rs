//! The limits: nothing in this crate waits without one, because a test that hangs tells nobody what it hung on.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(15);

/// Runs `attempt` for at most `limit`. `what` completes "could not ...", and names node, virtual host or queue.
pub(crate) async fn within<T, E>(limit: Duration, what: &str, attempt: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: Into<anyhow::Error>,
{
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result.map_err(Into::into).with_context(|| format!("could not {what}")),
        Err(_) => bail!("could not {what} within {limit:?}"),
    }
}

/// Asks `look` again and again until it answers `Ok(Ok(value))`. `Ok(Err(state))` is what was seen instead; the last
/// such state is in the error once `limit` is over.
pub(crate) async fn until<T, Look, Seen>(limit: Duration, what: &str, mut look: Look) -> Result<T>
where
    Look: FnMut() -> Seen,
    Seen: Future<Output = Result<Result<T, String>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let seen = match tokio::time::timeout_at(deadline.max(Instant::now() + POLL), look()).await {
            Ok(answer) => match answer? {
                Ok(value) => return Ok(value),
                Err(seen) => seen,
            },
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}; last seen: {seen}");
        }
        tokio::time::sleep(POLL).await;
    }
}
