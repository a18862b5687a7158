//! What the broker says of itself when a connection begins. lapin reads it and keeps it to itself.

use std::collections::BTreeMap;

/// Of the server's properties in `connection.start`, those that are texts: `product`, `version`, `cluster_name` and more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting(pub(super) BTreeMap<String, String>);

/// Type, channel and size of the frame; class and method; the protocol's version.
const BEFORE_PROPERTIES: usize = 7 + 4 + 2;
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

impl Greeting {
    /// Reads the first frame of a connection; nothing, if it is another one than expected.
    pub(super) fn read(frame: &[u8]) -> Self {
        let Some((before, rest)) = frame.split_at_checked(BEFORE_PROPERTIES) else { return Self::default() };
        if before[7..11] != CONNECTION_START {
            return Self::default();
        }
        let mut rest = rest;
        let table = take_long(&mut rest).unwrap_or_default();
        Self(texts(table))
    }
}

/// The texts of a table, up to the first thing that is not understood.
fn texts(mut table: &[u8]) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    while let Some((name, kind)) = take_short(&mut table).zip(take(&mut table, 1)) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match kind[0] {
            b'S' => match take_long(&mut table) {
                Some(value) => drop(texts.insert(text(name), text(value))),
                None => break,
            },
            // The table of capabilities, and what others may add.
            b'F' | b'A' | b'x' if take_long(&mut table).is_some() => {}
            b't' | b'b' | b'B' if take(&mut table, 1).is_some() => {}
            b's' | b'u' if take(&mut table, 2).is_some() => {}
            b'I' | b'i' | b'f' if take(&mut table, 4).is_some() => {}
            b'l' | b'L' | b'd' | b'T' if take(&mut table, 8).is_some() => {}
            b'V' => {}
            _ => break,
        }
    }
    texts
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_short<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(bytes, 1)?[0];
    take(bytes, length.into())
}

fn take_long<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(bytes, 4)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    take(bytes, usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(table: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0, 0, 0, 0, 0, 0, 0, 10, 0, 10, 0, 9];
        frame.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        frame.extend(table);
        frame
    }

    #[test]
    fn the_texts_of_the_servers_properties_are_read_whatever_stands_between_them() {
        let table = b"\x01cF\x00\x00\x00\x04\x01bt\x01\x07versionS\x00\x00\x00\x063.10.8\x01nI\x00\x00\x00\x01\x01pS\x00\x00\x00\x01q";
        let read = Greeting::read(&start(table)).0;
        let expected = [("p", "q"), ("version", "3.10.8")];
        assert_eq!(read, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(table in proptest::collection::vec(any::<u8>(), 0..200), whole in any::<bool>()) {
            let frame = if whole { start(&table) } else { table };
            let _ = Greeting::read(&frame);
        }
    }
}
