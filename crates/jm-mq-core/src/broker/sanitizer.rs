//! Makes foreign bytes in message properties digestible for the client library.
//!
//! The broker passes names and headers on as producers wrote them, and producers write anything: a Go service that
//! cuts a Chinese title at 255 bytes sends half a character. lapin takes such a name for a broken connection, and
//! reads nested tables by recursion until the stack ends. Either way one message would end every connection, or the
//! process, of every worker it is given to, for ever. So before lapin sees a delivery's frames,
//!
//! - bytes of a name that are no UTF-8 become `?`;
//! - tables and arrays nested deeper than [`MAX_DEPTH`] become byte arrays, which have the same encoding.
//!
//! Nothing changes its length, bodies are not touched, and well-formed frames pass through unchanged.

/// No header that anybody reads is nested deeper.
pub(super) const MAX_DEPTH: usize = 16;

/// Type, channel, and size of the payload; after the payload comes one end byte.
const FRAME_HEADER: usize = 7;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
/// Method and header frames are no larger than the negotiated `frame_max`, 128 KiB by default. What claims to be larger
/// is passed on for lapin to refuse.
const MAX_HELD: usize = 1024 * 1024;

/// The scanner of one connection's incoming bytes.
#[derive(Debug, Default)]
pub(crate) struct Sanitizer {
    /// Bytes of the present frame that need no look.
    skip: usize,
}

impl Sanitizer {
    /// Cleans the complete frames at the beginning of `bytes` in place, and returns how many bytes may be passed on.
    /// The rest is the beginning of a frame that has to be complete first: offer it again with more bytes behind it.
    pub(crate) fn clean(&mut self, bytes: &mut [u8]) -> usize {
        let mut position = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - position);
            self.skip -= skipped;
            position += skipped;
            let rest = &mut bytes[position..];
            let Some((header, payload)) = rest.split_at_mut_checked(FRAME_HEADER) else { return position };
            let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
            let wants_a_look = matches!(header[0], METHOD | CONTENT_HEADER) && size <= MAX_HELD;
            if !wants_a_look {
                self.skip = FRAME_HEADER + size + 1;
                continue;
            }
            if payload.len() <= size {
                return position;
            }
            // What does not follow the protocol is left as it is from there on, for lapin to judge.
            let mut cursor = Cursor(&mut payload[..size]);
            let _judged = if header[0] == METHOD { cursor.method() } else { cursor.content_header() };
            position += FRAME_HEADER + size + 1;
        }
    }
}

/// What is left of a frame's payload. Each step consumes something, or returns `None` where nothing is left.
struct Cursor<'a>(&'a mut [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let bytes = std::mem::take(&mut self.0);
        let (taken, rest) = bytes.split_at_mut_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn length(&mut self) -> Option<usize> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    }

    fn short_string(&mut self) -> Option<()> {
        let length = self.u8()?;
        make_utf8(self.take(length.into())?);
        Some(())
    }

    /// `basic.deliver`, `basic.get-ok` and `basic.return` carry names that producers choose.
    fn method(&mut self) -> Option<()> {
        const BASIC: u16 = 60;
        match (self.u16()?, self.u16()?) {
            (BASIC, 60) => {
                self.short_string()?; // consumer tag
                self.take(8 + 1)?; // delivery tag, redelivered
            }
            (BASIC, 71) => drop(self.take(8 + 1)?), // delivery tag, redelivered
            (BASIC, 50) => {
                self.take(2)?; // reply code
                self.short_string()?; // reply text
            }
            _ => return None,
        }
        self.short_string()?; // exchange
        self.short_string() // routing key
    }

    fn content_header(&mut self) -> Option<()> {
        self.take(2 + 2 + 8)?; // class, weight, size of the body
        let flags = self.u16()?;
        // In the order of the protocol; the flags go from the highest bit down.
        let properties = [
            Property::Name,     // content type
            Property::Name,     // content encoding
            Property::Table,    // headers
            Property::Fixed(1), // delivery mode
            Property::Fixed(1), // priority
            Property::Name,     // correlation id
            Property::Name,     // reply to
            Property::Name,     // expiration
            Property::Name,     // message id
            Property::Fixed(8), // timestamp
            Property::Name,     // type
            Property::Name,     // user id
            Property::Name,     // app id
            Property::Name,     // cluster id
        ];
        for (bit, property) in (2..16).rev().zip(properties) {
            if flags & (1 << bit) == 0 {
                continue;
            }
            match property {
                Property::Name => self.short_string()?,
                Property::Fixed(size) => drop(self.take(size)?),
                Property::Table => {
                    let length = self.length()?;
                    Cursor(self.take(length)?).table(1)?;
                }
            }
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        while !self.0.is_empty() {
            self.short_string()?;
            self.value(depth)?;
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        while !self.0.is_empty() {
            self.value(depth)?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        const BYTE_ARRAY: u8 = b'x';
        let kind = self.take(1)?;
        match kind[0] {
            b'V' => {}
            b't' | b'b' | b'B' => drop(self.take(1)?),
            b's' | b'u' | b'U' => drop(self.take(2)?),
            b'I' | b'i' | b'f' => drop(self.take(4)?),
            b'D' => drop(self.take(5)?),
            b'l' | b'L' | b'd' | b'T' => drop(self.take(8)?),
            b'S' | BYTE_ARRAY => {
                let length = self.length()?;
                self.take(length)?;
            }
            b'F' | b'A' if depth >= MAX_DEPTH => {
                kind[0] = BYTE_ARRAY;
                let length = self.length()?;
                self.take(length)?;
            }
            nested @ (b'F' | b'A') => {
                let length = self.length()?;
                let mut inner = Cursor(self.take(length)?);
                if nested == b'F' { inner.table(depth + 1)? } else { inner.array(depth + 1)? }
            }
            _ => return None,
        }
        Some(())
    }
}

enum Property {
    Name,
    Table,
    /// So many bytes.
    Fixed(usize),
}

fn make_utf8(mut bytes: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(bytes) {
        let bad = error.valid_up_to();
        let bad_length = error.error_len().unwrap_or(bytes.len() - bad);
        bytes[bad..bad + bad_length].fill(b'?');
        bytes = &mut bytes[bad + bad_length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 1];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xCE);
        bytes
    }

    fn content_header(flags: u16, properties: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        payload.extend(flags.to_be_bytes());
        payload.extend(properties);
        frame(CONTENT_HEADER, &payload)
    }

    /// An array in an array in an array …
    fn nested(levels: usize) -> Vec<u8> {
        let mut value = vec![b'V'];
        for _ in 0..levels {
            let mut outer = vec![b'A'];
            outer.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            outer.append(&mut value);
            value = outer;
        }
        value
    }

    fn headers_with(value: &[u8]) -> Vec<u8> {
        let mut table = vec![1, b'k'];
        table.extend(value);
        let mut properties = u32::try_from(table.len()).unwrap().to_be_bytes().to_vec();
        properties.extend(table);
        content_header(1 << 13, &properties)
    }

    fn cleaned(mut bytes: Vec<u8>) -> Vec<u8> {
        let all = bytes.len();
        assert_eq!(Sanitizer::default().clean(&mut bytes), all);
        bytes
    }

    #[test]
    fn half_a_character_in_a_name_becomes_question_marks() {
        let half = "题".as_bytes()[..2].to_vec();
        let mut type_property = vec![4, b'a', half[0], half[1], b'b'];
        type_property.extend([1, 0xFF]); // app id
        let clean = cleaned(content_header(1 << 5 | 1 << 3, &type_property));
        assert_eq!(clean, content_header(1 << 5 | 1 << 3, &[4, b'a', b'?', b'?', b'b', 1, b'?']));

        let mut deliver = vec![0, 60, 0, 60, 1, b't'];
        deliver.extend([0; 9]);
        deliver.extend([1, 0x80, 2, 0xC3, 0x28]);
        let clean = cleaned(frame(METHOD, &deliver));
        assert_eq!(&clean[clean.len() - 6..clean.len() - 1], &[1, b'?', 2, b'?', 0x28]);

        let mut got = vec![0, 60, 0, 71];
        got.extend([0; 9]);
        got.extend([1, 0x80, 2, 0xC3, 0x28, 0, 0, 0, 7]);
        let clean = cleaned(frame(METHOD, &got));
        assert_eq!(&clean[clean.len() - 10..clean.len() - 5], &[1, b'?', 2, b'?', 0x28]);
    }

    #[test]
    fn names_in_nested_tables_are_names_too() {
        let table = [b'F', 0, 0, 0, 3, 1, 0xFF, b'V'];
        assert_eq!(cleaned(headers_with(&table)), headers_with(&[b'F', 0, 0, 0, 3, 1, b'?', b'V']));
    }

    #[test]
    fn what_is_nested_too_deeply_becomes_a_byte_array_and_the_rest_stays() {
        let shallow = headers_with(&nested(MAX_DEPTH - 1));
        assert_eq!(cleaned(shallow.clone()), shallow);
        let deep = headers_with(&nested(20_000));
        let clean = cleaned(deep.clone());
        assert_eq!(clean.iter().zip(&deep).filter(|(a, b)| a != b).count(), 1);
        let changed = clean.iter().zip(&deep).find(|(a, b)| a != b);
        assert_eq!(changed, Some((&b'x', &b'A')));
    }

    #[test]
    fn bodies_are_not_touched() {
        let body = frame(3, &[0xFF; 100]);
        assert_eq!(cleaned(body.clone()), body);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_come_out_the_same_way_and_in_the_same_number(
            frames in proptest::collection::vec((0_u8..9, proptest::collection::vec(any::<u8>(), 0..80)), 0..6),
            flags in any::<u16>(),
            garbage in proptest::collection::vec(any::<u8>(), 0..40),
            piece in 1_usize..50,
        ) {
            let mut stream: Vec<u8> = content_header(flags, &garbage);
            for (kind, payload) in &frames {
                stream.extend(frame(*kind, payload));
            }
            let mut whole = stream.clone();
            prop_assert_eq!(Sanitizer::default().clean(&mut whole), stream.len());

            let (mut sanitizer, mut held, mut passed) = (Sanitizer::default(), Vec::new(), Vec::new());
            for chunk in stream.chunks(piece) {
                held.extend_from_slice(chunk);
                let clean = sanitizer.clean(&mut held);
                passed.extend(held.drain(..clean));
            }
            prop_assert!(held.is_empty());
            prop_assert_eq!(passed, whole);
        }
    }
}
