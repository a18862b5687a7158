//! The W3C trace context in the `traceparent` header, so that a record's journey can be followed across queues.

use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// A `traceparent`: which trace a message belongs to, and which step of it sent the message.
///
/// Only version 00 is read; anything malformed is treated as absent, as the W3C recommendation asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// The beginning of a trace.
    pub fn root() -> Self {
        Self { trace_id: fastrand::u128(1..), span_id: fastrand::u64(1..), flags: 1 }
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: fastrand::u64(1..), ..self }
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Reads `00-<trace id>-<span id>-<flags>`.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let [version, trace_id, span_id, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let lengths_right = version == "00" && trace_id.len() == 32 && span_id.len() == 16 && flags.len() == 2;
        // `from_str_radix` takes a sign and capitals, the recommendation neither.
        let digits_right = header.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        if parts.next().is_some() || !lengths_right || !digits_right {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace_id, 16).ok()?,
            span_id: u64::from_str_radix(span_id, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The context a message carries in its headers.
    pub(crate) fn from_headers(headers: &FieldTable) -> Option<Self> {
        match headers.inner().get(TRACEPARENT)? {
            AMQPValue::LongString(text) => Self::parse(std::str::from_utf8(text.as_bytes()).ok()?),
            AMQPValue::ShortString(text) => Self::parse(text.as_str()),
            _ => None,
        }
    }

    pub(crate) fn write_to(self, headers: &mut FieldTable) {
        headers.insert(ShortString::from(TRACEPARENT), AMQPValue::LongString(self.to_string().into()));
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_the_header() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        let mut headers = FieldTable::default();
        context.write_to(&mut headers);
        assert_eq!(TraceContext::from_headers(&headers), Some(context));
    }

    #[test]
    fn a_child_keeps_the_trace_and_changes_the_span() {
        let root = TraceContext::root();
        let child = root.child();
        assert_eq!(child.trace_id(), root.trace_id());
        assert_ne!(child, root);
    }

    #[test]
    fn malformed_contexts_are_treated_as_absent() {
        for malformed in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::parse(malformed), None, "{malformed:?}");
        }
    }
}
