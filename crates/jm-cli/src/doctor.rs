//! `jm doctor`: all that can be checked from here, each line ok or what to do.

mod broker;
mod check;
mod database;
mod engine;
mod version;

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use self::check::{Check, State};
use crate::{
    exit::Code,
    failure::Failure,
    management::Management,
    operator::Operator,
    output::{BAD, FAINT, GOOD, NOTICE, STRONG, Text, styled},
};

/// All that can be checked from here, each line ok or what to do
#[derive(Debug, Args)]
#[command(after_help = "\
States:
  ok       as it should be
  warn     works, and will not always
  fail     does not work
  unknown  nobody tells, or it is not configured here

The sum and the failures come first, and each remedy once, below all that it is
for. Nothing is changed: permissions are asked for in ways that cannot succeed,
and engines for their list of models. Ends with 1 if anything fails.

Examples:
  jm doctor
  jm doctor --worker asr-worker --management http://rabbit:15672
  jm doctor --json | jq '.checks[] | select(.state == \"fail\")'")]
pub(crate) struct Arguments {}

/// The whole answer. The keys are for programs: they stay.
#[derive(Debug, Serialize)]
struct Answer {
    ok: usize,
    warn: usize,
    fail: usize,
    unknown: usize,
    checks: Vec<Check>,
}

pub(crate) async fn run(_: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let management = Management::new(&operator.configuration.management, &operator.configuration.rabbitmq)?;
    // What is away takes its whole timeout: they wait side by side.
    let (broker, engines, database) = tokio::join!(
        broker::checks(operator, management.as_ref()),
        engine::checks(operator),
        database::checks(operator)
    );
    let mut checks: Vec<Check> = [broker?, engines, database].into_iter().flatten().collect();
    checks.sort_by_key(|check| check.state);
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let answer = Answer {
        ok: count(State::Ok),
        warn: count(State::Warn),
        fail: count(State::Fail),
        unknown: count(State::Unknown),
        checks,
    };
    if operator.output.is_json() {
        operator.output.json(&answer)?;
    } else {
        operator.output.line(shown(&answer));
    }
    Ok(if answer.fail > 0 { Code::Found } else { Code::Ok })
}

/// For people: the sum, the failures, the rest; each remedy once, below all that it is for.
fn shown(answer: &Answer) -> Text {
    let Answer { ok, warn, fail, unknown, checks } = answer;
    let style = if *fail > 0 { BAD } else { GOOD };
    let mut lines = vec![
        styled(style, format_args!("{fail} fail, {warn} warn, {unknown} unknown, {ok} ok")),
        Text::default(),
        styled(STRONG, format_args!("{:<STATE$}{:<CHECK$}", "state", "check")),
    ];
    let indent = " ".repeat(STATE + CHECK);
    let mut printed = BTreeSet::new();
    for (number, check) in checks.iter().enumerate() {
        let Some(remedy) = &check.remedy else {
            lines.push(line(check, &indent));
            continue;
        };
        if !printed.insert(remedy) {
            continue;
        }
        let alike = checks.iter().skip(number).filter(|other| other.remedy.as_ref() == Some(remedy));
        lines.extend(alike.map(|check| line(check, &indent)));
        lines.push(styled(STRONG, remedy.lines(&format!("{indent}-> "), &format!("{indent}   "))));
    }
    Text::joined(lines)
}

/// Columns of a line's first two words.
const STATE: usize = 9;
const CHECK: usize = 13;

fn line(check: &Check, indent: &str) -> Text {
    let word = check.state.word();
    let style = match check.state {
        State::Ok => GOOD,
        State::Warn => NOTICE,
        State::Fail => BAD,
        State::Unknown => FAINT,
    };
    let head = format!("{word:<STATE$}{:<CHECK$}", check.subject);
    Text::wrapped_behind(&check.text, &head, indent).beginning_styled(word, style)
}
