//! How long a server asks its clients to wait.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest wait a server can ask for. Beyond it the broker's own limits are near, and the server may be back.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);
/// The wait after a refusal for lack of capacity that names none: most limits count by the minute.
pub(crate) const UNNAMED: Duration = Duration::from_mins(1);
/// Headers that say when a limit has room again: OpenAI's and Groq's, in durations such as `1m30s`.
const RESETS: [&str; 2] = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"];
/// The prefix under which `LiteLLM` passes on the headers of the server behind it.
const PASSED_ON: &str = "llm_provider-";
/// How messages introduce their wait: OpenAI, Groq, Gemini, Azure.
const INTRODUCTIONS: [&str; 5] = ["try again in ", "retry in ", "retry after ", "wait for ", "wait "];

/// The wait that an answer names, in whichever of the usual places; `None` if it names none.
///
/// The most exact place wins: `retry-after-ms`, `Retry-After` (seconds, also in fractions, or a date), the same under
/// `LiteLLM`'s prefix, Gemini's `retryDelay`, the text of the message, and at last the times at which limits are reset.
pub(crate) fn named(headers: &HeaderMap, message: &str, delay: Option<&str>, now: SystemTime) -> Option<Duration> {
    let header = |name: &str| {
        let passed_on = format!("{PASSED_ON}{name}");
        [name, passed_on.as_str()].into_iter().find_map(|name| headers.get(name)?.to_str().ok())
    };
    let in_milliseconds = || header("retry-after-ms")?.trim().parse().ok().and_then(|ms: f64| seconds(ms / 1000.0));
    let in_header = || retry_after(header(RETRY_AFTER.as_str())?, now);
    let in_message = || {
        let message = message.to_ascii_lowercase();
        INTRODUCTIONS.iter().find_map(|words| {
            let (_, rest) = message.split_once(words)?;
            duration(rest)
        })
    };
    // Only of the limit that is used up; which one that is, no server says.
    let reset = || RESETS.iter().filter_map(|name| duration(header(name)?)).max();
    in_milliseconds().or_else(in_header).or_else(|| duration(delay?)).or_else(in_message).or_else(reset)
}

/// The header's value: seconds or a date; `None` if it is neither.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(number) => seconds(number),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

/// The duration at the beginning of a text: `1m30s`, `19.7s`, `250ms`, `5 minutes`, `12`; a number alone is in seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim_start();
    let mut sum = None;
    loop {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        // A sentence may end behind the number.
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else { return sum };
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = match after[..letters].to_ascii_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            // What follows is another word.
            _ if sum.is_none() => return seconds(number),
            _ => return sum,
        };
        sum = Some(sum.unwrap_or_default() + seconds(number * unit)?);
        rest = after[letters..].trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn wait(pairs: &[(&'static str, &'static str)], message: &str) -> Option<Duration> {
        named(&headers(pairs), message, None, SystemTime::now())
    }

    #[test]
    fn a_wait_is_found_in_every_place_where_servers_put_it() {
        let ms = Duration::from_millis;
        for (pairs, message, expected) in [
            (&[("retry-after", "7")][..], "", Some(ms(7000))),
            (&[("retry-after", "19.7")], "", Some(ms(19_700))),
            (&[("retry-after-ms", "1500"), ("retry-after", "2")], "", Some(ms(1500))),
            (&[("llm_provider-retry-after", "20")], "", Some(ms(20_000))),
            (&[("x-ratelimit-reset-requests", "1m30s")], "", Some(ms(90_000))),
            (&[("x-ratelimit-reset-requests", "250ms"), ("x-ratelimit-reset-tokens", "6s")], "", Some(ms(6000))),
            (&[], "Rate limit reached. Please try again in 19.7s. Visit …", Some(ms(19_700))),
            (&[], "Please try again in 1m2.5s.", Some(ms(62_500))),
            (&[], "Please retry after 12 seconds.", Some(ms(12_000))),
            (&[], "Please retry in 5 minutes", Some(ms(300_000))),
            (&[], "Please wait 3 and try again", Some(ms(3000))),
            (&[("retry-after", "soon")], "try again in a while", None),
            (&[("retry-after", "-1")], "", None),
            (&[("retry-after", "1e300")], "", None),
            (&[], "", None),
        ] {
            assert_eq!(wait(pairs, message), expected, "{pairs:?} {message}");
        }
        assert_eq!(named(&HeaderMap::new(), "", Some("39s"), SystemTime::now()), Some(ms(39_000)));
    }

    #[test]
    fn a_date_is_the_time_until_then() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let until = |value: &str| retry_after(value, now);
        assert_eq!(until("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
        assert_eq!(until(" Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(until("Sun, 6 Nov"), None);
    }
}
