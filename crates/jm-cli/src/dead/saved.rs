//! Dead letters in a file: a line of JSON for each, from which it can be put back to the byte.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jm_mq_core::BasicProperties;
use lapin::types::ShortString;
use serde::{Deserialize, Serialize};

use super::{
    headers::{self, Exact, short},
    letter::Letter,
    origin::Target,
};

/// The format's number, should it ever change.
const VERSION: u32 = 1;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedLetter {
    version: u32,
    /// The queue from which it was taken.
    pub(crate) queue: String,
    /// For people who look at the file; what counts is in the headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    properties: Properties,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, Exact>>,
    #[serde(flatten)]
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Body {
    #[serde(rename = "body")]
    Text(String),
    /// No UTF-8.
    #[serde(rename = "body_base64")]
    Bytes(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Properties {
    #[serde(flatten)]
    names: BTreeMap<Name, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_mode: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
}

/// The properties that are short texts, by AMQP's names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    ContentType,
    ContentEncoding,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Type,
    UserId,
    AppId,
    ClusterId,
}

type Get = fn(&BasicProperties) -> &Option<ShortString>;
type Set = fn(BasicProperties, ShortString) -> BasicProperties;

impl Name {
    const ALL: [(Self, Get, Set); 10] = [
        (Self::ContentType, BasicProperties::content_type, BasicProperties::with_content_type),
        (Self::ContentEncoding, BasicProperties::content_encoding, BasicProperties::with_content_encoding),
        (Self::CorrelationId, BasicProperties::correlation_id, BasicProperties::with_correlation_id),
        (Self::ReplyTo, BasicProperties::reply_to, BasicProperties::with_reply_to),
        (Self::Expiration, BasicProperties::expiration, BasicProperties::with_expiration),
        (Self::MessageId, BasicProperties::message_id, BasicProperties::with_message_id),
        (Self::Type, BasicProperties::kind, BasicProperties::with_type),
        (Self::UserId, BasicProperties::user_id, BasicProperties::with_user_id),
        (Self::AppId, BasicProperties::app_id, BasicProperties::with_app_id),
        (Self::ClusterId, BasicProperties::cluster_id, BasicProperties::with_cluster_id),
    ];
}

impl SavedLetter {
    pub(crate) fn new(queue: &str, letter: &Letter) -> Self {
        let properties = &letter.properties;
        let names = Name::ALL.iter().filter_map(|(name, get, _)| Some((*name, get(properties).as_ref()?.to_string())));
        Self {
            version: VERSION,
            queue: queue.to_owned(),
            to: Target::origin(letter).map(|target| target.to_string()),
            properties: Properties {
                names: names.collect(),
                delivery_mode: *properties.delivery_mode(),
                priority: *properties.priority(),
                timestamp: *properties.timestamp(),
            },
            headers: properties.headers().as_ref().map(headers::exact),
            body: match std::str::from_utf8(&letter.body) {
                Ok(text) => Body::Text(text.to_owned()),
                Err(_) => Body::Bytes(headers::base64(&letter.body)),
            },
        }
    }

    /// A line of a file.
    pub(crate) fn read(line: &str) -> Result<Self, String> {
        let saved: Self = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if saved.version != VERSION {
            return Err(format!("version {}; this jm reads version {VERSION}", saved.version));
        }
        Ok(saved)
    }

    /// The dead letter as it was.
    pub(crate) fn letter(&self) -> Result<Letter, String> {
        let mut properties = BasicProperties::default();
        for (name, _, set) in Name::ALL {
            if let Some(text) = self.properties.names.get(&name) {
                properties = set(properties, short(text)?);
            }
        }
        if let Some(mode) = self.properties.delivery_mode {
            properties = properties.with_delivery_mode(mode);
        }
        if let Some(priority) = self.properties.priority {
            properties = properties.with_priority(priority);
        }
        if let Some(timestamp) = self.properties.timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        if let Some(headers) = &self.headers {
            properties = properties.with_headers(headers::table(headers)?);
        }
        let body = match &self.body {
            Body::Text(text) => text.as_bytes().to_vec(),
            Body::Bytes(text) => headers::bytes(text)?,
        };
        Ok(Letter::new(properties, body))
    }
}

/// A new file with letters in it, for nobody else's eyes.
#[derive(Debug)]
pub(crate) struct SaveFile {
    file: File,
    path: PathBuf,
    is_empty: bool,
}

impl SaveFile {
    /// Never overwrites anything.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // The name has to survive a power cut as well as what is in the file.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self { file, path: path.to_owned(), is_empty: true })
    }

    /// Returns once the letters are on the disk.
    pub(crate) fn save<'a>(&mut self, queue: &str, letters: impl Iterator<Item = &'a Letter>) -> io::Result<()> {
        let mut lines = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut lines, &SavedLetter::new(queue, letter))?;
            lines.push(b'\n');
        }
        self.is_empty &= lines.is_empty();
        self.file.write_all(&lines)?;
        self.file.sync_all()
    }
}

impl Drop for SaveFile {
    /// An empty file would be taken for a copy, and be in the way of the next attempt.
    fn drop(&mut self) {
        if self.is_empty {
            // It is as good as gone.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use jm_mq_core::{AMQPValue, FieldTable};
    use lapin::types::{ByteArray, DecimalValue};

    use super::*;

    #[test]
    fn a_letter_survives_a_file_with_every_property_and_every_type_of_header() {
        let mut inner = FieldTable::default();
        inner.insert("count".into(), AMQPValue::LongLongInt(-1));
        let mut table = FieldTable::default();
        let values = [
            AMQPValue::Boolean(true),
            AMQPValue::ShortShortInt(-1),
            AMQPValue::ShortShortUInt(1),
            AMQPValue::ShortInt(-2),
            AMQPValue::ShortUInt(2),
            AMQPValue::LongInt(-3),
            AMQPValue::LongUInt(3),
            AMQPValue::LongLongInt(i64::MIN),
            AMQPValue::Float(f32::INFINITY),
            AMQPValue::Double(0.1),
            AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }),
            AMQPValue::ShortString("short".into()),
            AMQPValue::LongString("错".into()),
            AMQPValue::LongString(vec![0xff, 0].into()),
            AMQPValue::FieldArray(vec![AMQPValue::FieldTable(inner)].into()),
            AMQPValue::Timestamp(7),
            AMQPValue::ByteArray(ByteArray::from(vec![1, 2])),
            AMQPValue::Void,
        ];
        for (number, value) in values.into_iter().enumerate() {
            table.insert(format!("h{number}").into(), value);
        }
        let mut properties = BasicProperties::default().with_headers(table);
        for (number, (_, _, set)) in Name::ALL.into_iter().enumerate() {
            properties = set(properties, format!("name {number}").into());
        }
        let properties = properties.with_delivery_mode(1).with_priority(9).with_timestamp(u64::MAX);
        for body in [b"{\"a\": \"\\n\"}\n".to_vec(), vec![0xff, 0xfe], Vec::new()] {
            let letter = Letter::new(properties.clone(), body);
            let line = serde_json::to_string(&SavedLetter::new("q.dead", &letter)).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(SavedLetter::read(&line).unwrap().letter().unwrap(), letter);
        }
        let bare = Letter::new(BasicProperties::default(), b"x".to_vec());
        let line = serde_json::to_string(&SavedLetter::new("q.dead", &bare)).unwrap();
        assert_eq!(line, r#"{"version":1,"queue":"q.dead","properties":{},"body":"x"}"#);
        assert_eq!(SavedLetter::read(&line).unwrap().letter().unwrap(), bare);
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        assert!(SavedLetter::read("{}").is_err());
        assert!(SavedLetter::read(r#"{"version":2,"queue":"q","properties":{},"body":""}"#).unwrap_err().contains('2'));
        let wrong = SavedLetter::read(r#"{"version":1,"queue":"q","properties":{},"body_base64":"?"}"#).unwrap();
        assert!(wrong.letter().unwrap_err().contains("base64"));
    }
}
