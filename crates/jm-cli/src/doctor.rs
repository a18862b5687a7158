//! `jm doctor`: all that can be checked from here, each line ok or what to do.

mod broker;
mod check;
mod database;
mod engine;
mod version;

use clap::Args;
use serde::Serialize;

use self::check::{Check, State};
use crate::{
    exit::Code,
    failure::Failure,
    management::Management,
    operator::Operator,
    output::{Align, BAD, Cell, GOOD, Table, styled},
};

/// All that can be checked from here, each line ok or what to do
#[derive(Debug, Args)]
#[command(after_help = "\
States:
  ok       as it should be
  warn     works, and will not always
  fail     does not work
  unknown  nobody tells, or it is not configured here

Nothing is changed: permissions are asked for in ways that cannot succeed, and
engines for their list of models. Ends with 1 if anything fails.

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
    let checks: Vec<Check> = [broker?, engines, database].into_iter().flatten().collect();
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

/// For people.
fn shown(answer: &Answer) -> String {
    let mut table = Table::new(&[("state", Align::Left), ("check", Align::Left), ("", Align::Left)]);
    for check in &answer.checks {
        let word = check.state.word();
        let state = match check.state {
            State::Ok => Cell::good(word),
            State::Warn => Cell::notice(word),
            State::Fail => Cell::bad(word),
            State::Unknown => Cell::new(word),
        };
        let text = match &check.remedy {
            Some(remedy) => format!("{}\n-> {remedy}", check.text),
            None => check.text.clone(),
        };
        table.row([state, Cell::new(check.subject), Cell::new(text)]);
    }
    let Answer { ok, warn, fail, unknown, .. } = answer;
    let style = if *fail > 0 { BAD } else { GOOD };
    format!("{table}\n\n{}", styled(style, format_args!("{ok} ok, {warn} warn, {fail} fail, {unknown} unknown")))
}
