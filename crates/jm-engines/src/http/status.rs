//! What an HTTP status means for the message.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::error::ErrorClass;

/// The longest wait a server can ask for. Beyond it the broker's own limits are near, and the server may be back.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

/// The class of an answer that is no success.
///
/// | status | class |
/// |---|---|
/// | 3xx | operator: `base_url` is wrong, since redirects are not followed |
/// | 401, 403, 407 | operator: the key |
/// | 408, 409, 425, 429, 5xx | retryable, after `retry_after` if the server asked for a wait |
/// | other 4xx | permanent |
/// | other | retryable: no HTTP server answers that |
pub fn classify(status: u16, retry_after: Option<Duration>) -> ErrorClass {
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
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
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

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (value, wait) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("18446744073709551616", None),
            ("-1", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
