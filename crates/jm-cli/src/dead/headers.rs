//! Header tables: in properties, as JSON to look at, and as JSON that loses nothing.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jm_mq_core::{AMQPValue, FieldTable};
use lapin::types::{ByteArray, DecimalValue, ShortString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::amqp;

/// A header for people and programs that look at it. What JSON cannot tell apart is the same here.
pub(crate) fn shown(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::DecimalValue(value) => json!(f64::from(value.value) / 10f64.powi(value.scale.into())),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => json!(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(shown).collect(),
        AMQPValue::Timestamp(seconds) => {
            let at = i64::try_from(*seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            at.map_or(json!(seconds), |at| json!(at.to_string()))
        }
        AMQPValue::FieldTable(table) => shown_table(table),
        AMQPValue::ByteArray(bytes) => json!(BASE64_STANDARD.encode(bytes.as_slice())),
        AMQPValue::Void => Value::Null,
    }
}

pub(crate) fn shown_table(table: &FieldTable) -> Value {
    table.inner().iter().map(|(name, value)| (name.to_string(), shown(value))).collect()
}

/// A header with its exact type, as it is kept in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exact {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    /// JSON has no infinity, and rounds.
    F32Bits(u32),
    F64Bits(u64),
    Decimal {
        scale: u8,
        value: u32,
    },
    ShortText(String),
    Text(String),
    /// A text that is no UTF-8; base64.
    TextBytes(String),
    /// base64
    Bytes(String),
    Array(Vec<Exact>),
    Timestamp(u64),
    Table(BTreeMap<String, Exact>),
    Void,
}

impl From<&AMQPValue> for Exact {
    fn from(value: &AMQPValue) -> Self {
        match value {
            AMQPValue::Boolean(value) => Self::Bool(*value),
            AMQPValue::ShortShortInt(value) => Self::I8(*value),
            AMQPValue::ShortShortUInt(value) => Self::U8(*value),
            AMQPValue::ShortInt(value) => Self::I16(*value),
            AMQPValue::ShortUInt(value) => Self::U16(*value),
            AMQPValue::LongInt(value) => Self::I32(*value),
            AMQPValue::LongUInt(value) => Self::U32(*value),
            AMQPValue::LongLongInt(value) => Self::I64(*value),
            AMQPValue::Float(value) => Self::F32Bits(value.to_bits()),
            AMQPValue::Double(value) => Self::F64Bits(value.to_bits()),
            AMQPValue::DecimalValue(value) => Self::Decimal { scale: value.scale, value: value.value },
            AMQPValue::ShortString(text) => Self::ShortText(text.to_string()),
            AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::TextBytes(BASE64_STANDARD.encode(text.as_bytes())),
            },
            AMQPValue::FieldArray(values) => Self::Array(values.as_slice().iter().map(Self::from).collect()),
            AMQPValue::Timestamp(seconds) => Self::Timestamp(*seconds),
            AMQPValue::FieldTable(table) => Self::Table(exact(table)),
            AMQPValue::ByteArray(bytes) => Self::Bytes(BASE64_STANDARD.encode(bytes.as_slice())),
            AMQPValue::Void => Self::Void,
        }
    }
}

/// Each header of a table.
pub(crate) fn exact(table: &FieldTable) -> BTreeMap<String, Exact> {
    table.inner().iter().map(|(name, value)| (name.to_string(), value.into())).collect()
}

/// The table again.
pub(crate) fn table(headers: &BTreeMap<String, Exact>) -> Result<FieldTable, String> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(short(name)?, value.value()?);
    }
    Ok(table)
}

pub(crate) fn short(text: &str) -> Result<ShortString, String> {
    amqp::short(text).map_err(|failure| failure.to_string())
}

pub(crate) fn bytes(base64: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(base64).map_err(|error| format!("not base64: {error}"))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

impl Exact {
    fn value(&self) -> Result<AMQPValue, String> {
        Ok(match self {
            Self::Bool(value) => AMQPValue::Boolean(*value),
            Self::I8(value) => AMQPValue::ShortShortInt(*value),
            Self::U8(value) => AMQPValue::ShortShortUInt(*value),
            Self::I16(value) => AMQPValue::ShortInt(*value),
            Self::U16(value) => AMQPValue::ShortUInt(*value),
            Self::I32(value) => AMQPValue::LongInt(*value),
            Self::U32(value) => AMQPValue::LongUInt(*value),
            Self::I64(value) => AMQPValue::LongLongInt(*value),
            Self::F32Bits(bits) => AMQPValue::Float(f32::from_bits(*bits)),
            Self::F64Bits(bits) => AMQPValue::Double(f64::from_bits(*bits)),
            Self::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value }),
            Self::ShortText(text) => AMQPValue::ShortString(short(text)?),
            Self::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Self::TextBytes(text) => AMQPValue::LongString(bytes(text)?.into()),
            Self::Bytes(text) => AMQPValue::ByteArray(ByteArray::from(bytes(text)?)),
            Self::Array(values) => {
                let values: Vec<AMQPValue> = values.iter().map(Self::value).collect::<Result<_, _>>()?;
                AMQPValue::FieldArray(values.into())
            }
            Self::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
            Self::Table(headers) => AMQPValue::FieldTable(table(headers)?),
            Self::Void => AMQPValue::Void,
        })
    }
}
