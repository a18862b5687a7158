//! One line of the doctor's.

use serde::Serialize;

use crate::topology::Remedy;

/// What was checked, how it is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// `broker`, `version`, `engine` …
    #[serde(rename = "check")]
    pub(super) subject: &'static str,
    pub(super) state: State,
    pub(super) text: String,
    pub(super) remedy: Option<Remedy>,
}

/// In the order in which they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It does not work.
    Fail,
    /// It works, and will not always.
    Warn,
    /// Nobody tells, or it is not configured here.
    Unknown,
    /// As it should be.
    Ok,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

impl Check {
    pub(super) fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, state: State::Ok, text: text.into(), remedy: None }
    }

    pub(super) fn warn(subject: &'static str, text: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self { subject, state: State::Warn, text: text.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn fail(subject: &'static str, text: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self { subject, state: State::Fail, text: text.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn unknown(subject: &'static str, text: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self { subject, state: State::Unknown, text: text.into(), remedy: Some(remedy.into()) }
    }
}
