//! What was found out about one part of the topology.

use serde::Serialize;

use super::mend::Remedy;

/// One part: an exchange, a queue, a binding, a user's permissions, a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// `exchange`, `queue`, `binding`, `permission`, `policy`.
    pub(crate) object: &'static str,
    pub(crate) name: String,
    pub(crate) state: State,
    /// In words: what it is, or what it is and should not be.
    pub(crate) text: String,
    /// What mends it.
    pub(crate) mend: Option<Remedy>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As the specification wants it.
    Ok,
    /// It is not there. `apply` declares it.
    Missing,
    /// It is there, and another one.
    Differs,
    /// As it should be, with something beside it that an operator should know.
    Notice,
    /// The broker does not tell.
    Unknown,
}

impl State {
    pub(crate) fn is_difference(self) -> bool {
        match self {
            Self::Missing | Self::Differs => true,
            Self::Ok | Self::Notice | Self::Unknown => false,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Differs => "differs",
            Self::Notice => "notice",
            Self::Unknown => "unknown",
        }
    }
}

impl Finding {
    pub(crate) fn new(object: &'static str, name: impl Into<String>, state: State, text: impl Into<String>) -> Self {
        Self { object, name: name.into(), state, text: text.into(), mend: None }
    }

    /// With what mends it.
    pub(crate) fn mended_by(self, mend: impl Into<Remedy>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }
}
