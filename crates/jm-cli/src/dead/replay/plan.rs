//! `--dry-run`: what would go where.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Arguments, NO_ORIGIN};
use crate::{
    dead::{
        glance::{Glance, Purpose},
        list::or_none,
    },
    exit::Code,
    failure::Failure,
    operator::Operator,
    output::{FAINT, styled},
};

/// Different destinations and types that are told apart.
const MAX_ROWS: usize = 1000;

#[derive(Serialize)]
struct Row<'a> {
    count: u64,
    r#type: &'a str,
    error_kind: &'a str,
    to: &'a str,
}

pub(super) async fn run(arguments: &Arguments, queue: &str, operator: &Operator<'_>) -> Result<Code, Failure> {
    let mut glance =
        Glance::open(operator, queue, Purpose::Look { although_counted: arguments.count_deliveries }).await?;
    let (mut rows, mut count) = (BTreeMap::<[String; 3], u64>::new(), 0);
    let looked = loop {
        if arguments.limit == Some(count) {
            break Ok(());
        }
        let taken = match glance.next().await {
            Ok(Some(taken)) => taken,
            Ok(None) => break Ok(()),
            Err(trouble) => break Err(trouble),
        };
        let letter = &taken.letter;
        if arguments.filter.matches(letter) {
            let to = arguments.target(letter).map_or(format!("nowhere: {NO_ORIGIN}"), |target| target.to_string());
            let kind = letter.error_kind().unwrap_or_default();
            let row = [letter.message_type().unwrap_or_default().to_owned(), kind, to];
            if rows.len() < MAX_ROWS || rows.contains_key(&row) {
                *rows.entry(row).or_default() += 1;
            }
            count += 1;
        }
        if let Err(trouble) = glance.hold(taken).await {
            break Err(trouble);
        }
    };
    let closed = glance.close().await;
    looked?;
    closed?;
    let output = operator.output;
    let rows: Vec<Row<'_>> =
        rows.iter().map(|([r#type, error_kind, to], &count)| Row { count, r#type, error_kind, to }).collect();
    if output.is_json() {
        output.json(&rows)?;
        return Ok(Code::Ok);
    }
    for Row { count, r#type, error_kind, to } in rows {
        let (kind, message_type) = (or_none(error_kind), or_none(r#type));
        output.line(format_args!("{count:>7}  {kind:<12}  {message_type:<18}  to {to}"));
    }
    output.line(styled(FAINT, format_args!("{count} would be put back; nothing was")));
    Ok(Code::Ok)
}
