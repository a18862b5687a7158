//! How much room a header table takes on the wire.
//!
//! All properties of a message travel in one frame. A larger one is a protocol violation that costs the whole
//! connection, so we have to know before we send.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

/// The room for a header table: the 131,072 bytes of a frame at RabbitMQ's default `frame_max`, less what the other
/// properties can take (twelve names of up to 255 bytes, and some numbers).
pub(crate) const MAX_HEADER_BYTES: usize = 131_072 - 4096;

/// The size of the frame with a message's properties, in bytes.
pub(crate) fn frame_size(properties: &BasicProperties) -> usize {
    // Type, channel, size and end of the frame; class, weight, size of the body, flags.
    const AROUND: usize = 7 + 1 + 2 + 2 + 8 + 2;
    let names = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let name_size = |name: &ShortString| 1 + name.as_str().len();
    AROUND
        + names.into_iter().flatten().map(name_size).sum::<usize>()
        + properties.headers().as_ref().map_or(0, encoded_size)
        + usize::from(properties.delivery_mode().is_some())
        + usize::from(properties.priority().is_some())
        + properties.timestamp().map_or(0, |_| 8)
}

/// The encoded size of a table, in bytes.
pub(crate) fn encoded_size(table: &FieldTable) -> usize {
    4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + value_size(value)).sum::<usize>()
}

/// The encoded size of a value with its type's tag.
pub(crate) fn value_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(value_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => encoded_size(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    #[test]
    fn sizes_are_those_of_the_wire() {
        let mut table = FieldTable::default();
        assert_eq!(encoded_size(&table), 4);
        table.insert("abc".into(), AMQPValue::LongString("12345".into()));
        assert_eq!(encoded_size(&table), 4 + (1 + 3) + (1 + 4 + 5));
        let nested =
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true), AMQPValue::FieldTable(table)]));
        assert_eq!(value_size(&nested), 1 + 4 + 2 + (1 + 18));
    }
}
