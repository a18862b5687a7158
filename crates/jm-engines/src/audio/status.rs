//! What the status of a server of recordings means for the message.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::{
    error::ErrorClass,
    http::dialect::wait::{self, MAX_RETRY_AFTER},
};

/// The class of an answer that is no success.
///
/// | status | class |
/// |---|---|
/// | 3xx | operator: redirects of a store are not followed |
/// | 401, 403, 407 | operator: the key |
/// | 408, 409, 425, 429, 5xx | retryable, after `retry_after` if the server asked for a wait |
/// | other 4xx | permanent |
/// | other | retryable: no HTTP server answers that |
pub(super) fn classify(status: u16, retry_after: Option<Duration>) -> ErrorClass {
    match status {
        300..=399 | 401 | 403 | 407 => ErrorClass::Operator,
        408 | 409 | 425 | 429 => retryable(retry_after),
        400..=499 => ErrorClass::Permanent,
        _ => retryable(retry_after),
    }
}

fn retryable(retry_after: Option<Duration>) -> ErrorClass {
    // No wait at all is no wish: the backoff knows better.
    match retry_after.filter(|wait| !wait.is_zero()) {
        Some(wait) => ErrorClass::RetryAfter(wait.min(MAX_RETRY_AFTER)),
        None => ErrorClass::Retryable,
    }
}

/// The wait that the server asks for, in seconds or as a date; `None` for a header that is neither.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    wait::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_class() {
        let wait = Duration::from_secs(7);
        for status in 300..=599 {
            let (without, with) = match status {
                300..=399 | 401 | 403 | 407 => (ErrorClass::Operator, ErrorClass::Operator),
                408 | 409 | 425 | 429 | 500..=599 => (ErrorClass::Retryable, ErrorClass::RetryAfter(wait)),
                _ => (ErrorClass::Permanent, ErrorClass::Permanent),
            };
            assert_eq!(classify(status, None), without, "{status}");
            assert_eq!(classify(status, Some(wait)), with, "{status}");
        }
        for permanent in [400, 402, 404, 405, 406, 410, 413, 415, 418, 422, 431, 451] {
            assert_eq!(classify(permanent, Some(wait)), ErrorClass::Permanent, "{permanent}");
        }
    }

    #[test]
    fn a_wait_is_capped_and_no_wait_leaves_the_backoff() {
        assert_eq!(classify(429, Some(Duration::from_hours(1))), ErrorClass::RetryAfter(MAX_RETRY_AFTER));
        assert_eq!(classify(429, Some(Duration::ZERO)), ErrorClass::Retryable);
    }
}
