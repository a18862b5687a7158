//! What must hold of bodies that strangers send, for property tests and for `make fuzz`. Not part of the crate otherwise.

#![allow(clippy::missing_panics_doc, reason = "a broken promise is a panic, of every function here")]

use serde_json::Value;

use crate::{CATALOG, RecordId};

/// Any bytes as the body of every message type: refused, or read. What is read is written as something that is read
/// again without loss.
pub fn body(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    for message_type in CATALOG {
        let Ok(written) = message_type.reread(&body) else { continue };
        match message_type.reread(&written) {
            Ok(again) => assert_eq!(again, written, "{}: read again it is another", message_type.name),
            Err(error) => panic!("{}: what was written cannot be read: {error}; {written}", message_type.name),
        }
    }
}

/// A text as a record's id: refused, or kept as it is, short and without control characters.
pub fn record_id(text: &str) {
    let id: Result<RecordId, _> = serde_json::from_value(Value::from(text));
    let Ok(id) = id else { return };
    assert_eq!(serde_json::to_value(&id).ok(), Some(Value::from(text)));
    assert!((1..=RecordId::MAX_BYTES).contains(&text.len()) && !text.contains(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use crate::MessageType;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn golden(message_type: &MessageType) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{}.json", message_type.name));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// A value of any kind, the odd ones among them.
    fn odd() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            select(vec![-0.0, 0.1, 1e308, 5e-324]).prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            select(vec!["chat", "user", "passage", "simplified", "en", ""]).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec(("[a-z_]{1,8}", inner), 0..4).prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    /// Replaces what stands at the `place`th field or item, counted through the whole value.
    fn replace(value: &mut Value, place: &mut usize, by: &Value) {
        let below: Vec<&mut Value> = match value {
            Value::Object(fields) => fields.values_mut().collect(),
            Value::Array(items) => items.iter_mut().collect(),
            _ => Vec::new(),
        };
        for inner in below {
            if *place == 0 {
                *inner = by.clone();
            }
            *place = place.wrapping_sub(1);
            replace(inner, place, by);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_break_a_promise(bytes in vec(any::<u8>(), 0..300), id in "\\PC{0,210}|[\\x00-\\x20]{1,4}") {
            body(&bytes);
            record_id(&id);
        }

        #[test]
        fn no_changed_example_breaks_a_promise(
            message_type in select(CATALOG),
            changes in vec((0_usize..40, odd()), 1..4),
        ) {
            let mut example = golden(&message_type);
            for (mut place, by) in changes {
                replace(&mut example, &mut place, &by);
            }
            body(example.to_string().as_bytes());
        }
    }

    #[test]
    fn a_depth_that_would_end_the_stack_is_refused() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            body(format!("{}{}", open.repeat(100_000), close.repeat(100_000)).as_bytes());
        }
    }
}
