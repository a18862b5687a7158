//! What a body is before it is read: compressed, or in another charset than UTF-8.

use std::{
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use lapin::BasicProperties;
use ruzstd::decoding::{
    StreamingDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use crate::settlement::FailureKind;

/// The window that every reader of zstd has to offer (RFC 8878), and more than most writers use.
const MIN_WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// Why a body cannot be decoded: [`FailureKind::TooLarge`] or [`FailureKind::Undecodable`].
#[derive(Debug)]
pub(crate) struct Undecoded {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

impl Undecoded {
    fn undecodable(text: String) -> Self {
        Self { kind: FailureKind::Undecodable, text }
    }

    fn too_large(encoding: &str, limit: usize) -> Self {
        let text = format!("decoded from {encoding} more than max_body_bytes ({limit})");
        Self { kind: FailureKind::TooLarge, text }
    }
}

/// The body as it was before its `content_encoding` was applied, at most `limit` bytes of it.
///
/// Some clients (Spring AMQP, kombu) write a charset into `content_encoding`.
pub(crate) fn decoded(properties: &BasicProperties, body: &Bytes, limit: usize) -> Result<Bytes, Undecoded> {
    check_charset(properties)?;
    let named = properties.content_encoding().as_ref().map_or("", |name| name.as_str().trim());
    let encoding = named.to_ascii_lowercase();
    let result = match encoding.as_str() {
        "" | "identity" | "binary" | "8bit" | "utf-8" | "utf8" | "us-ascii" | "ascii" => return Ok(body.clone()),
        "gzip" | "x-gzip" => gzip(body, limit),
        "deflate" => deflate(body, limit),
        "zstd" => guarded_zstd(body, limit),
        _ => {
            return Err(Undecoded::undecodable(format!(
                "content_encoding {named:?} is not known here; allowed: gzip, deflate, zstd, identity"
            )));
        }
    };
    match result {
        Ok(Some(decoded)) => Ok(decoded.into()),
        Ok(None) => Err(Undecoded::too_large(&encoding, limit)),
        Err(error) => Err(Undecoded::undecodable(format!("it is not {encoding}, as content_encoding says: {error}"))),
    }
}

/// JSON is UTF-8. What says that it is something else is not guessed at.
fn check_charset(properties: &BasicProperties) -> Result<(), Undecoded> {
    let content_type = properties.content_type().as_ref().map_or("", |content_type| content_type.as_str());
    let charset = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').trim())
    });
    match charset {
        None | Some("") => Ok(()),
        Some(name) if ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| name.eq_ignore_ascii_case(known)) => {
            Ok(())
        }
        Some(name) => {
            Err(Undecoded::undecodable(format!("charset {name:?} of content_type is not read here; allowed: utf-8")))
        }
    }
}

/// `None` if it is more than the limit.
type Decoded = io::Result<Option<Vec<u8>>>;

fn read_to_limit(from: &mut impl Read, limit: usize) -> Decoded {
    let mut decoded = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut decoded)?;
    Ok((decoded.len() <= limit).then_some(decoded))
}

fn nothing_behind(rest: &[u8]) -> io::Result<()> {
    if rest.is_empty() { Ok(()) } else { Err(io::Error::other(format!("{} bytes behind its end", rest.len()))) }
}

/// One member or several, as RFC 1952 has it.
fn gzip(body: &[u8], limit: usize) -> Decoded {
    read_to_limit(&mut MultiGzDecoder::new(body), limit)
}

/// Zlib's format, as RFC 9110 has it, or the raw stream that some clients send instead.
fn deflate(body: &[u8], limit: usize) -> Decoded {
    let mut zlib = ZlibDecoder::new(body);
    let decoded = read_to_limit(&mut zlib, limit);
    match decoded {
        Ok(None) => return Ok(None),
        Ok(decoded) if zlib.get_ref().is_empty() => return Ok(decoded),
        Ok(_) | Err(_) => {}
    }
    let mut raw = DeflateDecoder::new(body);
    let raw_decoded = read_to_limit(&mut raw, limit);
    match raw_decoded {
        Ok(None) => Ok(None),
        Ok(decoded) if raw.get_ref().is_empty() => Ok(decoded),
        // What the specification's format says of it is more to the point.
        Ok(_) | Err(_) => decoded.and_then(|_| nothing_behind(zlib.get_ref()).map(|()| None)),
    }
}

/// The library has assertions that hostile bytes may break.
fn guarded_zstd(body: &[u8], limit: usize) -> Decoded {
    catch_unwind(AssertUnwindSafe(|| zstd(body, limit)))
        .unwrap_or_else(|_| Err(io::Error::other("a frame that cannot be")))
}

/// One frame or several, and such as are to be skipped.
fn zstd(mut body: &[u8], limit: usize) -> Decoded {
    let mut all = Vec::new();
    let window = limit.max(MIN_WINDOW_BYTES) as u64;
    loop {
        match StreamingDecoder::new_with_max_window_size(&mut body, window) {
            Ok(mut frame) => {
                let Some(mut decoded) = read_to_limit(&mut frame, limit - all.len())? else { return Ok(None) };
                let decoder = frame.into_frame_decoder();
                let told = decoder.get_checksum_from_data();
                if told.is_some() && told != decoder.get_calculated_checksum() {
                    return Err(io::Error::other("its checksum is another"));
                }
                if all.is_empty() { all = decoded } else { all.append(&mut decoded) }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                body = body.get(length as usize..).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Ok(None),
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        if body.is_empty() {
            return Ok(Some(all));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn of(encoding: &str, body: &[u8], limit: usize) -> Result<Bytes, Undecoded> {
        let properties = BasicProperties::default().with_content_encoding(encoding.into());
        decoded(&properties, &Bytes::copy_from_slice(body), limit)
    }

    fn gzip_of(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib_of(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_of(body: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_of(body: &[u8]) -> Vec<u8> {
        compress_to_vec(body, CompressionLevel::Fastest)
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    /// Each encoding with its writer.
    const ENCODINGS: [(&str, Encode); 4] =
        [("gzip", gzip_of), ("deflate", zlib_of), ("deflate", raw_of), ("zstd", zstd_of)];

    #[test]
    fn every_encoding_is_undone_however_its_name_is_written() {
        let body = r#"{"text":"你好 hello"}"#.repeat(1000);
        for (name, encode) in ENCODINGS {
            for name in [name.to_owned(), name.to_uppercase(), format!(" {name} ")] {
                assert_eq!(of(&name, &encode(body.as_bytes()), LIMIT).unwrap(), body, "{name}");
            }
            assert!(of(name, &encode(b""), LIMIT).unwrap().is_empty(), "{name}");
        }
        assert_eq!(of("x-gzip", &gzip_of(b"1"), LIMIT).unwrap(), "1");
        for name in ["", "identity", "Identity", "utf-8", "UTF-8", "binary"] {
            assert_eq!(of(name, b"\xff1", LIMIT).unwrap(), &b"\xff1"[..], "{name}: to the byte");
        }
    }

    #[test]
    fn a_frame_of_the_zstd_program_is_read_and_its_checksum_looked_at() {
        let mut frame = b"\x28\xB5\x2F\xFD\x04\x68\xED\x00\x00\xB8\x7B\x22\x74\x65\x78\x74\x22\x3A\x22\x68\x65\
            \x6C\x6C\x6F\x20\xE4\xBD\xA0\xE5\xA5\xBD\x22\x7D\x01\x00\xF1\x4A\x1D\x09\x5B\x98\x80"
            .to_vec();
        assert_eq!(of("zstd", &frame, LIMIT).unwrap(), r#"{"text":"hello hello hello hello 你好"}"#);
        *frame.last_mut().unwrap() ^= 1;
        assert!(of("zstd", &frame, LIMIT).unwrap_err().text.ends_with(": its checksum is another"));
    }

    #[test]
    fn several_members_and_frames_are_one_body() {
        assert_eq!(of("gzip", &[gzip_of(b"[1"), gzip_of(b",2]")].concat(), LIMIT).unwrap(), "[1,2]");
        let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let frames = [skipped.clone(), zstd_of(b"[1"), skipped, zstd_of(b",2]")].concat();
        assert_eq!(of("zstd", &frames, LIMIT).unwrap(), "[1,2]");
    }

    #[test]
    fn what_decodes_to_more_than_the_limit_is_too_large_and_stops_there() {
        for (name, encode) in ENCODINGS {
            let exact = encode(&vec![b' '; LIMIT]);
            assert_eq!(of(name, &exact, LIMIT).unwrap().len(), LIMIT, "{name}");
            let bomb = encode(&vec![b' '; 64 * LIMIT]);
            assert!(bomb.len() < LIMIT, "{name}: {}", bomb.len());
            for bomb in [encode(&vec![b' '; LIMIT + 1]), bomb] {
                let error = of(name, &bomb, LIMIT).unwrap_err();
                assert_eq!(error.kind, FailureKind::TooLarge);
                assert_eq!(error.text, format!("decoded from {name} more than max_body_bytes ({LIMIT})"));
            }
        }
        let frames = zstd_of(&vec![b' '; LIMIT / 2]).repeat(3);
        assert_eq!(of("zstd", &frames, LIMIT).unwrap_err().kind, FailureKind::TooLarge, "together");
        // A header alone, with a window of 1 GiB.
        let window = [&0xFD2F_B528_u32.to_le_bytes()[..], &[0x00, 20 << 3]].concat();
        assert_eq!(of("zstd", &window, LIMIT).unwrap_err().kind, FailureKind::TooLarge);
    }

    #[test]
    fn what_is_not_what_it_says_is_undecodable_and_says_so() {
        let body = br#"{"text":"hello"}"#;
        for (name, encode) in ENCODINGS {
            let whole = encode(body);
            let mut changed = whole.clone();
            changed[whole.len() / 2] ^= 0x55;
            let cut = [&b""[..], &body[..], &whole[..whole.len() - 1], &whole[..3]];
            for wrong in cut.into_iter().map(<[u8]>::to_vec).chain([[&whole[..], b"more"].concat()]) {
                let error = of(name, &wrong, LIMIT).unwrap_err();
                assert_eq!(error.kind, FailureKind::Undecodable);
                assert!(error.text.starts_with(&format!("it is not {name}, as content_encoding says: ")), "{error:?}");
            }
            // A raw stream has no checksum.
            let unseen = of(name, &changed, LIMIT).is_ok();
            assert!(!unseen || name == "deflate", "{name}");
        }
    }

    #[test]
    fn other_encodings_and_charsets_are_named() {
        for name in ["br", "gzip, gzip", "compress", "gbk", "a\nb"] {
            let error = of(name, b"{}", LIMIT).unwrap_err();
            assert_eq!(error.kind, FailureKind::Undecodable);
            let text = format!("content_encoding {name:?} is not known here; allowed: gzip, deflate, zstd, identity");
            assert_eq!(error.text, text);
        }
        let typed = |content_type: &str| {
            let properties = BasicProperties::default().with_content_type(content_type.into());
            decoded(&properties, &Bytes::from_static(b"{}"), LIMIT)
        };
        for right in ["", "text/plain", "application/json;charset=UTF-8", "a/b; Charset=\"utf-8\"", "a/b; charset="] {
            assert_eq!(typed(right).unwrap(), "{}", "{right}");
        }
        for wrong in ["application/json; charset=gbk", "text/plain;x=y; CHARSET=\"gbk\"", "charset; charset = gbk"] {
            let error = typed(wrong).unwrap_err();
            assert_eq!(error.kind, FailureKind::Undecodable);
            assert_eq!(error.text, "charset \"gbk\" of content_type is not read here; allowed: utf-8");
        }
    }
}
