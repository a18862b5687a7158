//! What an engine's failure means for the message.

use std::{fmt, time::Duration};

use jm_mq_core::HandlerError;

/// Why an engine, or the fetching of a recording, failed.
///
/// Not a [`std::error::Error`]: as one, a handler's `?` would make every failure a retryable one. This way `?` keeps
/// the class. The text has no body, key or signed address in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    class: ErrorClass,
    length: Length,
    text: String,
}

/// Whether the text's length is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    NotAtFault,
    /// The server refused it without a word that is known.
    Perhaps,
    TooLong,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may well work later: the network, a busy engine.
    Retryable,
    /// It may work after this wait, which the engine asked for.
    RetryAfter(Duration),
    /// The configuration is at fault (a key, an address), never the message: retried, and logged as an error.
    Operator,
    /// The message itself cannot be worked on.
    Permanent,
}

impl EngineError {
    /// May well work later.
    pub fn retryable(text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Retryable, text)
    }

    /// May work after `delay`.
    pub fn retry_after(text: impl Into<String>, delay: Duration) -> Self {
        Self::new(ErrorClass::RetryAfter(delay), text)
    }

    /// Works once somebody mends the configuration.
    pub fn operator(text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Operator, text)
    }

    /// Never works with this message.
    pub fn permanent(text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, text)
    }

    /// Never works with this message, since it has more tokens than the model can read. The same in pieces may work.
    pub fn too_long(text: impl Into<String>) -> Self {
        Self { length: Length::TooLong, ..Self::permanent(text) }
    }

    /// Never works with this message, for a reason that the server did not give in words that are known. One try with
    /// less of it may tell.
    pub fn perhaps_too_long(text: impl Into<String>) -> Self {
        Self { length: Length::Perhaps, ..Self::permanent(text) }
    }

    pub(crate) fn new(class: ErrorClass, text: impl Into<String>) -> Self {
        Self { class, length: Length::NotAtFault, text: text.into() }
    }

    /// Whether another try makes sense.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// Whether the model refused the text for its length. Permanent unless the caller can send less of it.
    pub fn is_too_long(&self) -> bool {
        self.length == Length::TooLong
    }

    /// Whether the model may have refused the text for its length: one try with half of it is worth it.
    pub fn may_be_too_long(&self) -> bool {
        self.length != Length::NotAtFault
    }

    /// The same, said of something in particular: `texts[3]: …`.
    #[must_use]
    pub fn of(self, what: impl fmt::Display) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<EngineError> for HandlerError {
    fn from(error: EngineError) -> Self {
        match error.class {
            ErrorClass::Retryable => Self::retryable(error.text),
            ErrorClass::RetryAfter(delay) => Self::retry_after(error.text, delay),
            ErrorClass::Operator => {
                tracing::error!(error = error.text, "the configuration has to be mended; trying again");
                Self::retryable(error.text)
            }
            ErrorClass::Permanent => Self::permanent(error.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_mark_keeps_the_class() {
        let fails = |error: EngineError| -> Result<(), HandlerError> { Ok(Err(error)?) };
        assert!(fails(EngineError::permanent("p")).unwrap_err().is_permanent());
        assert!(!fails(EngineError::operator("o")).unwrap_err().is_permanent());
        let delay = Duration::from_secs(7);
        assert_eq!(fails(EngineError::retry_after("r", delay)).unwrap_err().retry_delay(), Some(delay));
        assert_eq!(fails(EngineError::retryable("r").of("texts[3]")).unwrap_err().to_string(), "texts[3]: r");
        let long = EngineError::too_long("l").of("part");
        assert!(long.is_too_long() && !EngineError::permanent("p").is_too_long());
        assert!(fails(long).unwrap_err().is_permanent());
    }
}
