//! A question to whoever sits at the terminal, with yes or no for an answer.

use std::io::{self, BufRead as _, IsTerminal as _};

use tokio::sync::oneshot;

use crate::{exit::Code, operator::Operator, output::Text};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Yes,
    /// Also an empty line, the end of input, and whatever is not a clear yes.
    No,
    Interrupted(Code),
}

/// Whether there is somebody who sees the question, and can answer.
pub(crate) fn can_be_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on standard error, beside the answer. The reply is waited for on a thread of its own, since a terminal's line
/// cannot be waited for otherwise, and the process ends whether it has come or not.
pub(crate) async fn ask(question: &Text, operator: &Operator<'_>) -> Reply {
    let Operator { output, interrupt, .. } = operator;
    output.ask(question);
    let (sender, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // What cannot be read is no yes.
        let read = io::stdin().lock().read_line(&mut line);
        // Nobody waits for it any more after an interrupt.
        let _ = sender.send(if read.is_ok() { line } else { String::new() });
    });
    let _attention = interrupt.attend();
    let answer = tokio::select! {
        biased;
        code = interrupt.requested() => Err(code),
        line = answer => Ok(line.unwrap_or_default()),
    };
    // Only Enter has begun a new line.
    if !answer.as_ref().is_ok_and(|line| line.ends_with('\n')) {
        output.ask(&Text::lines("\n"));
    }
    match answer {
        Err(code) => Reply::Interrupted(code),
        Ok(line) if matches!(line.trim().to_lowercase().as_str(), "y" | "yes") => Reply::Yes,
        Ok(_) => Reply::No,
    }
}
