//! A body, and whether a worker could read it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use jm_tasks::MessageType;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{exit::Code, failure::Failure};

/// The largest message that RabbitMQ 4 takes.
const MAX_BODY: u64 = 16 * 1024 * 1024;
/// Mistakes that are told at once.
const MAX_MISTAKES: usize = 5;

/// Where a body comes from.
#[derive(Debug)]
pub(super) enum Source {
    Stdin,
    File(PathBuf),
    Text(String),
}

impl Source {
    pub(super) fn of(stdin: bool, file: Option<&Path>, json: Option<&str>) -> Result<Self, Failure> {
        match (stdin, file, json.filter(|json| !json.is_empty())) {
            (false, Some(file), None) if file != Path::new("-") => Ok(Self::File(file.to_owned())),
            (true, None, None) | (false, Some(_), None) => Ok(Self::Stdin),
            (false, None, Some(text)) => Ok(Self::Text(text.to_owned())),
            _ => Err(Failure::usage("give the body by one of --json '…', --file FILE, or - for standard input")),
        }
    }

    fn read(self) -> Result<Vec<u8>, Failure> {
        let read = |reader: &mut dyn Read| {
            let mut body = Vec::new();
            reader.take(MAX_BODY + 1).read_to_end(&mut body).map(|_| body)
        };
        let body = match self {
            Self::Text(text) => text.into_bytes(),
            Self::Stdin => read(&mut io::stdin().lock())?,
            Self::File(path) => {
                let opened = File::open(&path).and_then(|mut file| read(&mut file));
                opened.map_err(|error| Failure::missing(format_args!("{}: {error}", path.display())))?
            }
        };
        if body.len() as u64 > MAX_BODY {
            Err(invalid(format_args!("the body has more than {MAX_BODY} bytes, RabbitMQ's limit")))
        } else {
            Ok(body)
        }
    }
}

/// The body to the byte, and the record it is about, if it says so.
pub(super) async fn read(message_type: &MessageType, source: Source) -> Result<(Vec<u8>, Option<String>), Failure> {
    // On a thread of its own: a terminal or a pipe may keep it for ever, and neither a signal nor the process's end waits
    // for that.
    let (sender, body) = oneshot::channel();
    std::thread::spawn(move || sender.send(source.read()));
    let body = body.await.unwrap_or_else(|_| Err(invalid("the body could not be read")))?;
    checked(message_type, body)
}

fn checked(message_type: &MessageType, body: Vec<u8>) -> Result<(Vec<u8>, Option<String>), Failure> {
    let json: Value =
        serde_json::from_slice(&body).map_err(|error| invalid(format_args!("the body is no JSON: {error}")))?;
    let name = message_type.name;
    let schema = message_type.schema();
    let schema =
        jsonschema::draft202012::new(schema.as_value()).map_err(|error| invalid(format_args!("{name}: {error}")))?;
    let mistakes: Vec<String> = schema
        .iter_errors(&json)
        .take(MAX_MISTAKES)
        .map(|mistake| match mistake.instance_path().as_str() {
            "" => mistake.masked().to_string(),
            path => format!("{path}: {}", mistake.masked()),
        })
        .collect();
    if !mistakes.is_empty() {
        return Err(invalid(format_args!("no valid `{name}`: {}; see `jm schema {name}`", mistakes.join("; "))));
    }
    // The schema cannot say everything that the type does.
    message_type
        .reread(&json)
        .map_err(|error| invalid(format_args!("no valid `{name}`: {error}; see `jm schema {name}`")))?;
    let record = json.get("record_id").and_then(Value::as_str).map(ToOwned::to_owned);
    Ok((body, record))
}

fn invalid(text: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Found, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, body: &str) -> String {
        checked(MessageType::find(name).unwrap(), body.into()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_by_the_field_and_never_by_its_value() {
        let error = refused("llm.chat", r#"{"messages": "geheim"}"#);
        assert!(error.starts_with("no valid `llm.chat`: /messages: ") && error.contains("array"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
        assert!(refused("llm.chat", "{}").contains(r#""messages" is a required property"#));
        assert!(refused("llm.chat", "{").starts_with("the body is no JSON: "));
    }

    #[test]
    fn a_body_comes_from_one_place() {
        assert!(Source::of(false, None, None).is_err());
        assert!(Source::of(true, None, Some("{}")).is_err());
        assert!(matches!(Source::of(false, Some(Path::new("-")), Some("")), Ok(Source::Stdin)));
    }
}
