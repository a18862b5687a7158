//! `jm topology`: what the specification wants, against what the broker has.

mod apply;
mod binding;
mod exchange;
mod finding;
mod inspection;
mod mend;
mod permission;
mod policy;
mod queue;

use clap::{Args, Subcommand};
use serde::Serialize;

pub(crate) use self::{
    finding::{Finding, State},
    inspection::{Inspection, inspect},
    mend::{Remedy, missing},
    permission::ask_to_write,
};
use crate::{
    exit::Code,
    failure::Failure,
    management::Management,
    operator::Operator,
    output::{Align, BAD, Cell, FAINT, NOTICE, STRONG, Table, Text, styled},
};

/// What the specification wants, against what the broker has
#[derive(Debug, Args)]
#[command(after_help = "\
For each worker: a direct, durable exchange and a durable queue without
arguments, bound by its own name; a durable queue for dead letters; what its
user may do; and policies that lose messages. Over AMQP the broker tells the
first thing in which an exchange or a queue differs, and nothing of bindings and
policies. The management API (--management) tells all.

Examples:
  jm topology check                     each part, and how it is
  jm topology diff --worker asr-worker  what differs, and what mends it
  jm topology apply --dry-run           what would be declared

check and diff end with 1 if anything differs.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Each part, and how it is
    Check,
    /// What differs, in words, with the command that mends it
    Diff,
    /// Declare what is missing; what exists is never changed
    Apply {
        /// Only tell what would be declared
        #[arg(long)]
        dry_run: bool,
    },
}

/// The whole answer. The keys are for programs: they stay.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    vhost: &'a str,
    /// How many findings are `missing` or `differs`.
    differences: usize,
    /// How many are `unknown`.
    unknown: usize,
    /// What was declared just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<Vec<String>>,
    findings: Vec<&'a Finding>,
}

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let management = Management::new(&operator.configuration.management, &operator.configuration.rabbitmq)?;
    let connection = operator.connect("topology").await?;
    let inspection = Inspection::new(operator, &connection, management.as_ref());
    let mut findings = inspect(&inspection).await?;
    let mut declared = None;
    if let Action::Apply { dry_run } = &arguments.action {
        let done = apply::missing(&inspection, &findings, *dry_run).await?;
        if !dry_run && !done.is_empty() {
            findings = inspect(&inspection).await?;
        }
        declared = Some(done);
    }
    connection.close().await;
    let answer = Answer {
        vhost: &operator.configuration.rabbitmq.vhost,
        differences: findings.iter().filter(|finding| finding.state.is_difference()).count(),
        unknown: findings.iter().filter(|finding| finding.state == State::Unknown).count(),
        declared,
        findings: match &arguments.action {
            Action::Check => findings.iter().collect(),
            Action::Diff | Action::Apply { .. } => {
                findings.iter().filter(|finding| finding.state != State::Ok).collect()
            }
        },
    };
    if operator.output.is_json() {
        operator.output.json(&answer)?;
    } else {
        operator.output.line(shown(&arguments.action, &answer));
    }
    let would_still_differ = match &arguments.action {
        // What would be declared is no difference any more.
        Action::Apply { dry_run: true } => findings.iter().any(|finding| finding.state == State::Differs),
        _ => answer.differences > 0,
    };
    Ok(if would_still_differ { Code::Found } else { Code::Ok })
}

/// For people.
fn shown(action: &Action, answer: &Answer<'_>) -> Text {
    let mut lines = Vec::new();
    match action {
        Action::Check => lines.push(table(&answer.findings).into()),
        Action::Diff => lines.extend(answer.findings.iter().flat_map(|finding| paragraph(finding))),
        Action::Apply { dry_run } => {
            let verb = if *dry_run { "would declare" } else { "declared" };
            let declared = answer.declared.iter().flatten();
            lines.extend(declared.map(|declared| Text::wrapped(&format!("{verb} {declared}"), "")));
            let missing = |finding: &&&Finding| !(*dry_run && finding.state == State::Missing);
            lines.extend(answer.findings.iter().filter(missing).flat_map(|finding| paragraph(finding)));
        }
    }
    lines.push(summary(answer));
    Text::joined(lines)
}

fn table(findings: &[&Finding]) -> Table {
    let columns = [("object", Align::Left), ("name", Align::Left), ("state", Align::Left), ("", Align::Left)];
    let mut table = Table::new(&columns);
    for finding in findings {
        let word = finding.state.word();
        let state = match finding.state {
            State::Ok => Cell::good(word),
            State::Missing | State::Differs => Cell::bad(word),
            State::Notice => Cell::notice(word),
            State::Unknown => Cell::new(word),
        };
        table.row([Cell::new(finding.object), Cell::new(&finding.name), state, Cell::new(&finding.text)]);
    }
    table
}

/// What differs, and below it what mends it. What is unknown is told of in the summary.
fn paragraph(finding: &Finding) -> Vec<Text> {
    let style = match finding.state {
        State::Missing | State::Differs => BAD,
        State::Notice => NOTICE,
        State::Ok | State::Unknown => return Vec::new(),
    };
    let head = format!("{} {}", finding.object, finding.name);
    // Coloured after it is wrapped: the colour's letters have no width.
    let text = Text::wrapped(&format!("{head} {}", finding.text), "").beginning_styled(&head, style);
    let mut lines = vec![text];
    lines.extend(finding.mend.iter().map(|mend| styled(STRONG, mend.lines("  ", "    "))));
    lines
}

fn summary(answer: &Answer<'_>) -> Text {
    let count = |count: usize, one: &str, more: &str| match count {
        0 => format!("no {more}"),
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let mut summary = count(answer.differences, "difference", "differences");
    if answer.unknown > 0 {
        let unknown: Vec<String> = answer
            .findings
            .iter()
            .filter(|finding| finding.state == State::Unknown)
            .map(|finding| format!("{} {} ({})", finding.object, finding.name, finding.text))
            .collect();
        let unknown = match unknown.split_first() {
            // They are all alike: without the management API there is one for each queue.
            Some((first, rest)) if rest.len() > 2 => format!("{first}, and {} more alike", rest.len()),
            _ => unknown.join(", "),
        };
        summary = format!("{summary}; not known: {unknown}");
    }
    let text = Text::wrapped(&summary, "");
    if answer.differences == 0 { text } else { text.styled(FAINT) }
}
