//! `jm dead list`: what failed, one after the other.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use jm_service::escape::escaped;
use serde::Serialize;
use textwrap::{Options, WordSplitter};

use super::{Choice, QUORUM, glance::Glance, letter::Letter, origin::Target};
use crate::{
    exit::Code,
    failure::Failure,
    operator::Operator,
    output::{BAD, FAINT, Output, Text, WIDTH, styled},
};

const HELP: &str = "\
Nothing is removed: the messages are taken without an ack, one at a time, and
handed back in the end, or when jm ends in whatever way. Meanwhile nobody else
gets them. They keep their order, and are marked as redelivered, which means
nothing to a replay. What arrives during the look is not shown.

Examples:
  jm dead list jm.asr
  jm dead list jm.asr --kind timeout --since 2h
  jm dead list jm.llm --text 'does not write' --limit 5
  jm dead list jm.llm --json | jq -r .message_id      one object a line";

/// What failed, and why
#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{QUORUM}"))]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// So many at most, the oldest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

/// Lines of an error's text.
const ERROR_LINES: usize = 2;
/// Different kinds and types in the sum.
const MAX_SUMS: usize = 20;

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let queue = arguments.choice.queue(&operator.configuration);
    let mut glance = Glance::open(operator, &queue, arguments.choice.look()).await?;
    let (mut listed, mut sums) = (0, BTreeMap::<(String, String), u64>::new());
    let done = loop {
        if listed == arguments.limit {
            break Ok(());
        }
        let taken = match glance.next().await {
            Ok(Some(taken)) => taken,
            Ok(None) => break Ok(()),
            Err(trouble) => break Err(trouble),
        };
        let letter = &taken.letter;
        if arguments.choice.filter.matches(letter) {
            listed += 1;
            tell(operator.output, &queue, letter)?;
            let sum = (letter.error_kind().unwrap_or_default(), letter.message_type().unwrap_or_default().to_owned());
            if sums.len() < MAX_SUMS || sums.contains_key(&sum) {
                *sums.entry(sum).or_default() += 1;
            }
        }
        if let Err(trouble) = glance.hold(taken).await {
            break Err(trouble);
        }
    };
    let (ready, seen) = (glance.ready(), glance.seen());
    let closed = glance.close().await;
    done?;
    closed?;
    let output = operator.output;
    if !output.is_json() {
        conclude(output, &queue, &sums, listed, (ready, seen));
    }
    Ok(Code::Ok)
}

fn conclude(
    output: Output,
    queue: &str,
    sums: &BTreeMap<(String, String), u64>,
    listed: u64,
    (ready, seen): (u32, u32),
) {
    if listed == 0 {
        output.line(match ready {
            0 => format!("{queue} is empty"),
            _ => format!("none of the {ready} dead letters in {queue} is like that"),
        });
        return;
    }
    let mut sums: Vec<_> = sums.iter().collect();
    sums.sort_by(|(_, one), (_, other)| other.cmp(one));
    for ((kind, message_type), count) in sums {
        output.line(format_args!("{count:>7}  {}  {message_type}", or_none(kind)));
    }
    let rest = match ready - seen.min(ready) {
        0 => String::new(),
        rest => format!("; {rest} not looked at: --limit"),
    };
    output.line(styled(FAINT, format_args!("{listed} of {ready} dead letters in {queue}{rest}")));
}

/// One letter.
fn tell(output: Output, queue: &str, letter: &Letter) -> Result<(), Failure> {
    if output.is_json() {
        return output.json_line(&Listed::of(queue, letter));
    }
    let kind = letter.error_kind().unwrap_or_default();
    let runs = match letter.attempts() {
        None | Some(0) => String::new(),
        Some(1) => "1 run".to_owned(),
        Some(runs) => format!("{runs} runs"),
    };
    let message_type = cut(&escaped(or_none(letter.message_type().unwrap_or_default())), 24);
    let kind = styled(BAD, format_args!("{:<12}", cut(&escaped(or_none(&kind)), 24)));
    let rest = format!("  {message_type:<24}  {runs}");
    output.line(Text::new(when(letter.failed_at())) + "  " + kind + rest.trim_end());
    if let Some(id) = letter.message_id() {
        output.line(styled(FAINT, format_args!("  {}", cut(&escaped(id), WIDTH - 2))));
    }
    if let Some(error) = letter.error_text() {
        for line in wrapped(&error) {
            output.line(format_args!("  {line}"));
        }
    }
    Ok(())
}

/// A text's first lines.
fn wrapped(text: &str) -> Vec<String> {
    // What does not fit into the lines need not be arranged in them.
    let text: String = escaped(text).chars().take(WIDTH * ERROR_LINES).collect();
    let options = Options::new(WIDTH - 2).word_splitter(WordSplitter::NoHyphenation);
    let mut lines: Vec<String> = textwrap::wrap(&text, options).into_iter().map(Into::into).collect();
    if lines.len() > ERROR_LINES {
        lines.truncate(ERROR_LINES);
        if let Some(last) = lines.last_mut() {
            *last = format!("{}…", cut(last, WIDTH - 4).trim_end_matches('…'));
        }
    }
    lines
}

/// So many columns at most.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

pub(crate) fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// In UTC, to the second.
pub(crate) fn when(at: Option<Timestamp>) -> String {
    at.map_or_else(|| format!("{:<19}", "-"), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A letter for programs: what is not known is null.
#[derive(Debug, Serialize)]
pub(crate) struct Listed<'a> {
    queue: &'a str,
    message_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
    r#type: Option<&'a str>,
    error_kind: Option<String>,
    error: Option<String>,
    attempts: Option<u64>,
    failed_at: Option<Timestamp>,
    worker: Option<String>,
    original_queue: Option<String>,
    exchange: Option<String>,
    routing_key: Option<String>,
    bytes: usize,
}

impl<'a> Listed<'a> {
    pub(crate) fn of(queue: &'a str, letter: &'a Letter) -> Self {
        let (exchange, routing_key) =
            Target::origin(letter).map(|target| (target.exchange, target.routing_key)).unzip();
        Self {
            queue,
            message_id: letter.message_id(),
            correlation_id: letter.correlation_id(),
            r#type: letter.message_type(),
            error_kind: letter.error_kind(),
            error: letter.error_text(),
            attempts: letter.attempts(),
            failed_at: letter.failed_at(),
            worker: letter.text(jm_mq_core::dead_letters::WORKER),
            original_queue: letter.original_queue(),
            exchange,
            routing_key,
            bytes: letter.body.len(),
        }
    }
}
