//! How a replay ended, and what is said of it.

use std::time::Duration;

use jm_mq_core::ConnectError;
use serde::Serialize;

use super::Tally;
use crate::{
    dead::letter::Letter,
    exit::Code,
    failure::Failure,
    operator::Operator,
    output::{BAD, GOOD, NOTICE, styled},
};

/// Why no further message was put back.
#[derive(Debug)]
pub(crate) enum End {
    /// There is none, or the limit is reached.
    Done,
    Interrupted,
    /// A canary is a dead letter again.
    CanaryBack(Box<Letter>),
    /// Nothing was heard of a canary.
    CanaryUnknown {
        id: Option<String>,
        after: Duration,
    },
    /// A canary reached no queue.
    CanaryRefused,
    /// A canary would wait for ever.
    NobodyConsumes(String),
}

/// For programs.
#[derive(Serialize)]
struct Answer<'a> {
    queue: &'a str,
    replayed: u64,
    perhaps_twice: u64,
    came_back: u64,
    left: Vec<Left<'a>>,
    end: &'static str,
}

#[derive(Serialize)]
struct Left<'a> {
    reason: &'a str,
    count: u64,
}

impl End {
    fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::CanaryBack(_) => "canary_failed",
            Self::CanaryUnknown { .. } => "canary_unknown",
            Self::CanaryRefused => "canary_refused",
            Self::NobodyConsumes(_) => "nobody_consumes",
        }
    }

    /// What there is to say besides numbers.
    fn complaint(&self) -> Option<String> {
        let rest = "the rest is untouched";
        match self {
            Self::Done | Self::Interrupted => None,
            Self::CanaryBack(letter) => {
                let (kind, text) = (letter.error_kind().unwrap_or_default(), letter.error_text().unwrap_or_default());
                Some(format!("{} has failed again, {kind}: {text}; {rest}", canary(letter.message_id())))
            }
            Self::CanaryUnknown { id, after } => Some(format!(
                "nothing was heard of {} within {}s: its worker tries it again, or tells nothing; {rest}; \
                 --canary-wait waits longer, --silence-is-success goes on",
                canary(id.as_deref()),
                after.as_secs()
            )),
            Self::CanaryRefused => Some(format!("the canary could not be put back; {rest}")),
            Self::NobodyConsumes(queue) => Some(format!(
                "nobody consumes `{queue}`, so a canary's outcome would never come; start its worker first"
            )),
        }
    }
}

fn canary(id: Option<&str>) -> String {
    id.map_or("the canary".to_owned(), |id| format!("canary `{id}`"))
}

/// The connection that watched a canary is gone.
pub(super) fn canary_lost(id: Option<&str>, error: &ConnectError) -> Failure {
    Failure::unavailable(format_args!(
        "{error}; what becomes of {} is not known, and the rest is untouched",
        canary(id)
    ))
}

/// The last words, and the exit code.
pub(crate) async fn tell(
    tally: &Tally,
    queue: &str,
    end: Result<End, Failure>,
    operator: &Operator<'_>,
) -> Result<Code, Failure> {
    let output = operator.output;
    if output.is_json() {
        let left = tally.left.iter().map(|(reason, &count)| Left { reason, count }).collect();
        let word = end.as_ref().map_or("failed", End::word);
        let Tally { replayed, perhaps_twice, came_back, .. } = *tally;
        output.json(&Answer { queue, replayed, perhaps_twice, came_back, left, end: word })?;
    } else {
        output.line(styled(GOOD, format_args!("{} put back", tally.replayed)));
        for (reason, count) in &tally.left {
            output.line(styled(BAD, format_args!("left in {queue}")) + format_args!(" {count}: {reason}"));
        }
        if tally.came_back > 0 {
            output.line(styled(NOTICE, format_args!("{} are back", tally.came_back)) + ": they have failed again");
        }
        if tally.perhaps_twice > 0 {
            let words = format!("{} may be there twice", tally.perhaps_twice);
            output.line(styled(NOTICE, words) + ": a connection was lost with it in hand");
        }
    }
    let end = end?;
    if let Some(complaint) = end.complaint() {
        return Err(Failure::new(Code::Found, complaint));
    }
    Ok(match end {
        End::Interrupted => operator.interrupt.requested().await,
        _ if tally.left.is_empty() => Code::Ok,
        _ => Code::Found,
    })
}
