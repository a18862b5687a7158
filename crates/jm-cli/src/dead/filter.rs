//! Which dead letters are meant.

use std::str::FromStr;

use clap::Args;
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::letter::Letter;

/// All that is given has to hold; of an option that is repeated, one value.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which ones")]
pub(crate) struct Filter {
    /// Of this message type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// That failed like this: exhausted, permanent, timeout, …; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// With this in the error's text or in the body, in any case of letters
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// That failed at this time or later: 2h (ago), 2026-11-23, 2026-11-23T13:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// That failed before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// With this message id or correlation id; may be repeated
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
}

impl Filter {
    /// Whether every letter is meant.
    pub(crate) fn is_everything(&self) -> bool {
        let Self { types, kinds, text, since, until, ids } = self;
        types.is_empty() && kinds.is_empty() && text.is_none() && since.is_none() && until.is_none() && ids.is_empty()
    }

    pub(crate) fn matches(&self, letter: &Letter) -> bool {
        let one_of = |wanted: &[String], is: Option<&str>| {
            wanted.is_empty() || is.is_some_and(|is| wanted.iter().any(|wanted| wanted == is))
        };
        let is_identified =
            self.ids.is_empty() || one_of(&self.ids, letter.message_id()) || one_of(&self.ids, letter.correlation_id());
        is_identified
            && one_of(&self.types, letter.message_type())
            && one_of(&self.kinds, letter.error_kind().as_deref())
            && self.is_in_time(letter)
            && self.text.as_deref().is_none_or(|text| contains(letter, text))
    }

    /// A letter that does not say when it failed is in no span of time.
    fn is_in_time(&self, letter: &Letter) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Some(at) = letter.failed_at() else { return false };
        self.since.is_none_or(|Moment(since)| at >= since) && self.until.is_none_or(|Moment(until)| at < until)
    }
}

fn contains(letter: &Letter, text: &str) -> bool {
    let text = text.to_lowercase();
    let has = |within: &str| within.to_lowercase().contains(&text);
    letter.error_text().is_some_and(|error| has(&error)) || has(&String::from_utf8_lossy(&letter.body))
}

/// A time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(Timestamp);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, Timestamp::now())
    }
}

impl Moment {
    fn read(text: &str, now: Timestamp) -> Result<Self, String> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self(at));
        }
        if let Ok(ago) = text.parse::<SignedDuration>() {
            return now.checked_sub(ago.abs()).map(Self).map_err(|_| "too long ago".to_owned());
        }
        // Times without a zone are UTC, as all that jm prints.
        let at = text.parse::<civil::DateTime>().or_else(|_| text.parse::<civil::Date>().map(Into::into));
        let zoned = at.and_then(|at| at.to_zoned(TimeZone::UTC));
        zoned.map(|at| Self(at.timestamp())).map_err(|_| {
            "neither a span such as 2h or 3days, nor a time such as 2026-11-23 or 2026-11-23T13:00:00 (UTC)".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use jm_mq_core::{AMQPValue, BasicProperties, FieldTable, dead_letters};

    use super::*;

    fn letter(headers: &[(&'static str, &str)], body: &str) -> Letter {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        let properties =
            BasicProperties::default().with_type("llm.chat".into()).with_message_id("m-1".into()).with_headers(table);
        Letter::new(properties, body.into())
    }

    #[test]
    fn times_are_spans_from_now_or_utc() {
        let now: Timestamp = "2026-11-23T13:00:00Z".parse().unwrap();
        for (text, at) in [
            ("2h", "2026-11-23T11:00:00Z"),
            ("90 minutes", "2026-11-23T11:30:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("2026-11-20T10:30", "2026-11-20T10:30:00Z"),
            ("2026-11-20 10:30:05", "2026-11-20T10:30:05Z"),
            ("2026-11-20T10:30:00+08:00", "2026-11-20T02:30:00Z"),
        ] {
            assert_eq!(Moment::read(text, now), Ok(Moment(at.parse().unwrap())), "{text}");
        }
        assert!(Moment::read("yesterday", now).unwrap_err().contains("2h"));
    }

    #[test]
    fn all_that_is_given_has_to_hold() {
        let letter = letter(
            &[
                (dead_letters::ERROR_KIND, "timeout"),
                (dead_letters::EXCEPTION_MESSAGE, "No answer within 5 s"),
                (dead_letters::FAILED_AT, "2026-11-23T13:00:00Z"),
            ],
            r#"{"text": "Grüße"}"#,
        );
        let all = Filter::default();
        assert!(all.is_everything() && all.matches(&letter));
        let of = |change: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            assert!(!filter.is_everything());
            filter.matches(&letter)
        };
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(of(&|f| f.types = vec!["x".into(), "llm.chat".into()]));
        assert!(!of(&|f| f.types = vec!["x".into()]));
        assert!(of(&|f| f.kinds = vec!["timeout".into()]));
        assert!(!of(&|f| f.kinds = vec!["panic".into()]));
        assert!(of(&|f| f.ids = vec!["m-1".into()]));
        assert!(!of(&|f| f.ids = vec!["m-2".into()]));
        assert!(of(&|f| f.text = Some("no ANSWER".into())));
        assert!(of(&|f| f.text = Some("GRÜSSE".to_lowercase().replace("ss", "ß"))));
        assert!(!of(&|f| f.text = Some("something else".into())));
        assert!(of(&|f| f.since = at("2026-11-23T13:00:00Z")));
        assert!(!of(&|f| f.until = at("2026-11-23T13:00:00Z")));
        assert!(!of(&|f| (f.types, f.kinds) = (vec!["llm.chat".into()], vec!["panic".into()])));
    }
}
