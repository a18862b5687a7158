//! Why a command could not be done: one line that names the thing and the remedy, and an exit code.

use std::{fmt, io};

use jm_mq_core::{ConnectError, OptionsError, PublishError};
use jm_service::config::Problem;

use crate::exit::Code;

/// Ends a command. Its text is one line, whatever the causes are made of.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: Code,
    lines: Vec<String>,
}

impl Failure {
    /// `text` names the thing and the remedy.
    pub(crate) fn new(code: Code, text: impl fmt::Display) -> Self {
        Self { code, lines: vec![one_line(&text.to_string())] }
    }

    /// The command line cannot be used.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::new(Code::Usage, text)
    }

    /// What was named does not exist.
    pub(crate) fn missing(text: impl fmt::Display) -> Self {
        Self::new(Code::Missing, text)
    }

    /// A server cannot be reached, or refuses.
    pub(crate) fn unavailable(text: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, text)
    }

    /// A line for each mistake.
    pub(crate) fn configuration(problems: impl IntoIterator<Item = String>) -> Self {
        Self { code: Code::Configuration, lines: problems.into_iter().map(|problem| one_line(&problem)).collect() }
    }

    pub(crate) fn interrupted(code: Code) -> Self {
        Self { code, lines: Vec::new() }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Usually one; none for what the user did.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Servers' texts may have line ends. What a terminal would obey is escaped where it is printed.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("; "))
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let remedy = match &error {
            ConnectError::Unreachable { .. } | ConnectError::Silent { .. } => {
                "; does it run, and are rabbitmq.host and rabbitmq.port right?"
            }
            ConnectError::Tls { .. } => "; are rabbitmq.tls.ca_file and rabbitmq.tls.server_name right?",
            ConnectError::Lost(_) => "; try again",
            _ => "",
        };
        Self::unavailable(format_args!("{error}{remedy}"))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self::unavailable(error)
    }
}

impl From<OptionsError> for Failure {
    fn from(error: OptionsError) -> Self {
        Self::configuration([error.to_string()])
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::configuration(problems.iter().map(ToString::to_string))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Code::Io, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::unavailable("a\n  b\u{85} c");
        assert_eq!(failure.lines(), ["a b c"]);
    }
}
