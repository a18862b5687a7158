//! What the broker says of itself when a connection begins.
//!
//! It is read while the connection is dialled, since many a server accepts connections and is no broker, or is silent.
//! lapin, which gets it afterwards, reads it and keeps it to itself.

use std::{collections::BTreeMap, io, str};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a client of AMQP 0-9-1 sends first.
pub(super) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
/// RabbitMQ's has about 600 bytes.
const MAX_GREETING_BYTES: usize = 128 * 1024;
/// Of what another server says, in an error.
const MAX_SHOWN_BYTES: usize = 60;

/// What is read of `connection.start`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Of the server's properties those that are texts: `product`, `version`, `cluster_name` and more.
    pub(super) properties: BTreeMap<String, String>,
    /// The SASL mechanisms that it offers.
    pub(super) mechanisms: Vec<String>,
}

/// Why there is no greeting.
#[derive(Debug)]
pub(super) enum NoGreeting {
    /// The connection failed or was closed.
    Lost(io::Error),
    /// The server speaks something else: what.
    Stranger(String),
}

/// Begins the conversation, and returns the broker's first frame.
pub(super) async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Vec<u8>, NoGreeting> {
    let written = async {
        stream.write_all(&PROTOCOL_HEADER).await?;
        stream.flush().await
    };
    let written = written.await;
    let mut received = Vec::new();
    loop {
        match expected(&received) {
            Expected::More if received.len() < MAX_GREETING_BYTES => {}
            Expected::More => return Err(NoGreeting::Stranger("its greeting does not end".into())),
            Expected::Nothing => return Ok(received),
            Expected::Other => return Err(NoGreeting::Stranger(stranger(&received))),
        }
        match stream.read_buf(&mut received).await {
            Ok(0) if received.is_empty() => {
                // What it had to say may have been read before our header could not be written.
                written.map_err(NoGreeting::Lost)?;
                let closed = "it closed the connection without a greeting";
                return Err(NoGreeting::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, closed)));
            }
            Ok(0) => return Err(NoGreeting::Stranger(stranger(&received))),
            Ok(_) => {}
            Err(error) => return Err(NoGreeting::Lost(error)),
        }
    }
}

enum Expected {
    More,
    Nothing,
    /// It is no frame of AMQP.
    Other,
}

/// A method's frame on channel 0, up to and with its end.
fn expected(received: &[u8]) -> Expected {
    const METHOD: [u8; 3] = [1, 0, 0];
    const END: u8 = 0xce;
    let begun = received.len().min(METHOD.len());
    if received[..begun] != METHOD[..begun] {
        let header = PROTOCOL_HEADER.len().min(received.len());
        let of_amqp = received[..header.min(4)] == PROTOCOL_HEADER[..header.min(4)];
        return if of_amqp && header < PROTOCOL_HEADER.len() { Expected::More } else { Expected::Other };
    }
    let Some((head, rest)) = received.split_at_checked(7) else { return Expected::More };
    let size = usize::try_from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).unwrap_or(usize::MAX);
    match rest.get(size) {
        Some(&END) => Expected::Nothing,
        Some(_) => Expected::Other,
        None if size > MAX_GREETING_BYTES => Expected::Other,
        None => Expected::More,
    }
}

/// Who speaks like that.
fn stranger(received: &[u8]) -> String {
    let line = received.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    let shown = line[..line.len().min(MAX_SHOWN_BYTES)].escape_ascii();
    match received {
        [b'A', b'M', b'Q', b'P', _, 1, 0, 0, ..] => "it speaks AMQP 1.0 and not 0-9-1".into(),
        [b'A', b'M', b'Q', b'P', id, major, minor, revision, ..] => {
            format!("it speaks another version of AMQP ({id}-{major}-{minor}-{revision}) and not 0-9-1")
        }
        [0x15, 3, ..] => "it expects TLS at this port: set rabbitmq.tls, or the port without TLS, usually 5672".into(),
        [b'H', b'T', b'T', b'P', b'/', ..] => format!("it is an HTTP server (`{shown}`)"),
        [b'S', b'S', b'H', b'-', ..] => format!("it is an SSH server (`{shown}`)"),
        _ => format!("it begins with `{shown}`"),
    }
}

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
        let mechanisms = take_long(&mut rest).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default();
        Self { properties: texts(table), mechanisms: mechanisms.split_whitespace().map(str::to_owned).collect() }
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
        let read = Greeting::read(&start(table)).properties;
        let expected = [("p", "q"), ("version", "3.10.8")];
        assert_eq!(read, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    /// The broker's answer to our header.
    async fn answered(answer: &[u8]) -> Result<Vec<u8>, NoGreeting> {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let serve = async {
            let mut header = [0; 8];
            theirs.read_exact(&mut header).await.unwrap();
            assert_eq!(header, PROTOCOL_HEADER);
            // It may have gone away in the middle.
            _ = theirs.write_all(answer).await;
            drop(theirs);
        };
        let (greeting, ()) = tokio::join!(
            async {
                let answer = exchange(&mut ours).await;
                drop(ours);
                answer
            },
            serve
        );
        greeting
    }

    #[tokio::test]
    async fn a_greeting_is_read_whole_with_the_mechanisms_that_are_offered() {
        let mut frame = start(b"\x01pS\x00\x00\x00\x01q");
        frame.extend(b"\x00\x00\x00\x0ePLAIN EXTERNAL\x00\x00\x00\x05en_US");
        let size = u32::try_from(frame.len() - 7).unwrap();
        frame[3..7].copy_from_slice(&size.to_be_bytes());
        frame.push(0xce);
        assert_eq!(answered(&frame).await.unwrap(), frame);
        assert_eq!(Greeting::read(&frame).mechanisms, ["PLAIN", "EXTERNAL"]);
    }

    #[tokio::test]
    async fn a_server_that_is_no_broker_is_named() {
        let long = [b'x'; 300];
        for (answer, words) in [
            (&b"HTTP/1.1 400 Bad Request\r\nServer: x"[..], "it is an HTTP server (`HTTP/1.1 400 Bad Request`)"),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", "it is an SSH server (`SSH-2.0-OpenSSH_9.2p1`)"),
            (b"AMQP\x00\x01\x00\x00", "it speaks AMQP 1.0 and not 0-9-1"),
            (b"AMQP\x03\x01\x00\x00", "it speaks AMQP 1.0 and not 0-9-1"),
            (b"AMQP\x01\x01\x00\x0a", "it speaks another version of AMQP (1-1-0-10) and not 0-9-1"),
            (b"\x15\x03\x03\x00\x02\x02\x0a", "it expects TLS at this port"),
            (b"J\x00\x00\x00\x0a5.5.5", "it begins with `J\\x00\\x00\\x00`"),
            (b"AMQ", "it begins with `AMQ`"),
            (b"\x01\x00\x00\xff\xff\xff\xff", "it begins with `\\x01\\x00\\x00\\xff"),
            (&long, "it begins with `xxx"),
        ] {
            match answered(answer).await {
                Err(NoGreeting::Stranger(text)) => assert!(text.starts_with(words) && text.len() < 120, "{text}"),
                other => panic!("{answer:?}: {other:?}"),
            }
        }
        assert!(matches!(answered(b"").await, Err(NoGreeting::Lost(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(table in proptest::collection::vec(any::<u8>(), 0..200), whole in any::<bool>()) {
            let frame = if whole { start(&table) } else { table };
            let _ = Greeting::read(&frame);
        }
    }
}
