//! `jm dead show`: one whole dead letter.

use clap::Args;
use jm_mq_core::FieldTable;
use jm_service::escape::escaped;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Choice, QUORUM,
    glance::Glance,
    headers::{base64, shown, shown_table},
    letter::Letter,
    list::{Listed, or_none, when},
    origin::Target,
};
use crate::{
    exit::Code,
    failure::Failure,
    operator::Operator,
    output::{BAD, FAINT, Output, STRONG, Text, styled},
};

const HELP: &str = "\
Bodies are what users wrote and said: without --bodies only their form is shown.

Examples:
  jm dead show jm.asr --id 0199f3c5-7d1e-7c3b-9a63-5f1d2c7b8e90
  jm dead show jm.asr --kind undecodable --bodies
  jm dead show jm.asr --json --bodies | jq .body";

/// Headers and body of what failed
#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{QUORUM}"))]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Show the bodies as they are
    #[arg(long)]
    bodies: bool,
    /// So many at most, the oldest first
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let queue = arguments.choice.queue(&operator.configuration);
    let mut glance = Glance::open(operator, &queue, arguments.choice.look()).await?;
    let mut shown = 0;
    let done = loop {
        if shown == arguments.limit {
            break Ok(());
        }
        let taken = match glance.next().await {
            Ok(Some(taken)) => taken,
            Ok(None) => break Ok(()),
            Err(trouble) => break Err(trouble),
        };
        if arguments.choice.filter.matches(&taken.letter) {
            if shown > 0 && !operator.output.is_json() {
                operator.output.line("");
            }
            shown += 1;
            tell(operator.output, &queue, &taken.letter, arguments.bodies)?;
        }
        if let Err(trouble) = glance.hold(taken).await {
            break Err(trouble);
        }
    };
    let ready = glance.ready();
    let closed = glance.close().await;
    done?;
    closed?;
    if shown > 0 {
        return Ok(Code::Ok);
    }
    Err(Failure::missing(match ready {
        0 => format!("{queue} is empty"),
        _ => format!("none of the {ready} dead letters in {queue} is like that; `jm dead list` shows what there is"),
    }))
}

/// A letter for programs: all of `list`, and the rest.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    listed: Listed<'a>,
    properties: Value,
    headers: Value,
    /// The body; a text where it is no JSON, and null where that is no UTF-8 either.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

fn tell(output: Output, queue: &str, letter: &Letter, bodies: bool) -> Result<(), Failure> {
    let headers = letter.properties.headers().as_ref();
    if output.is_json() {
        let (body, body_base64) = match (bodies, json_of(&letter.body)) {
            (false, _) => (None, None),
            (true, Some(body)) => (Some(body), None),
            (true, None) => match std::str::from_utf8(&letter.body) {
                Ok(text) => (Some(json!(text)), None),
                Err(_) => (Some(Value::Null), Some(base64(&letter.body))),
            },
        };
        let properties = properties(letter).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let headers = headers.map_or(json!({}), shown_table);
        let shown = Shown { listed: Listed::of(queue, letter), properties, headers, body, body_base64 };
        return output.json_line(&shown);
    }
    let kind = letter.error_kind().unwrap_or_default();
    let message_type = styled(STRONG, or_none(letter.message_type().unwrap_or_default()));
    output.line(message_type + "  " + styled(BAD, or_none(&kind)) + "  " + when(letter.failed_at()));
    let to = Target::origin(letter).map_or("unknown: it does not say where it was".to_owned(), |to| to.to_string());
    entry(output, "goes back to", &to);
    for (name, value) in properties(letter) {
        entry(output, name, &value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned));
    }
    output.line(styled(STRONG, "headers"));
    for (name, value) in headers.map(FieldTable::inner).into_iter().flatten() {
        let value = shown(value);
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        entry(output, name.as_str(), &text);
    }
    tell_body(output, &letter.body, bodies);
    Ok(())
}

fn tell_body(output: Output, body: &[u8], bodies: bool) {
    let json = json_of(body);
    let what = match (&json, std::str::from_utf8(body)) {
        (Some(_), _) => "JSON",
        (None, Ok(_)) => "text that is no JSON",
        (None, Err(_)) => "bytes that are no text",
    };
    let hidden = if bodies { "" } else { ", its form; --bodies shows it" };
    let length = body.len();
    output.line(styled(STRONG, "body") + " " + styled(FAINT, format_args!("{length} bytes of {what}{hidden}")));
    match (json, bodies) {
        (Some(json), true) => output.line(pretty(&json)),
        (Some(json), false) => output.line(pretty(&form(&json))),
        (None, true) => output.line(Text::lines(String::from_utf8_lossy(body))),
        (None, false) => {}
    }
}

fn entry(output: Output, name: &str, value: &str) {
    output.line(Text::new("  ") + styled(FAINT, format_args!("{:<22}", escaped(name))) + "  " + value);
}

/// Every property that it has but the headers.
fn properties(letter: &Letter) -> Vec<(&'static str, Value)> {
    let properties = &letter.properties;
    let names = [
        ("message_id", properties.message_id()),
        ("correlation_id", properties.correlation_id()),
        ("type", properties.kind()),
        ("reply_to", properties.reply_to()),
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("expiration", properties.expiration()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    let names = names.into_iter().filter_map(|(name, value)| Some((name, json!(value.as_ref()?.as_str()))));
    let numbers = [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
    ];
    let published = properties.timestamp().and_then(|at| jiff::Timestamp::from_second(i64::try_from(at).ok()?).ok());
    names
        .chain(numbers.into_iter().filter_map(|(name, value)| Some((name, json!(value?)))))
        .chain(published.map(|at| ("timestamp", json!(at.to_string()))))
        .collect()
}

fn json_of(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

fn pretty(json: &Value) -> Text {
    // JSON's own escapes leave some for the terminal.
    Text::lines(serde_json::to_string_pretty(json).unwrap_or_default())
}

/// The form of a value without what is in it.
fn form(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => json!("true or false"),
        Value::Number(_) => json!("number"),
        Value::String(text) => json!(format!("text of {} characters", text.chars().count())),
        Value::Array(values) => match values.first() {
            None => json!([]),
            Some(first) => json!([form(first), format!("{} of these", values.len())]),
        },
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), form(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_nothing_of_what_is_in_it() {
        let body = json!({"text": "geheim", "n": 4711, "yes": true, "list": [[0.25, 0.5], []], "none": null});
        let form = form(&body);
        assert_eq!(
            form,
            json!({
                "text": "text of 6 characters", "n": "number", "yes": "true or false", "none": null,
                "list": [["number", "2 of these"], "2 of these"],
            })
        );
    }
}
