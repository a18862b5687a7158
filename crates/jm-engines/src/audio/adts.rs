//! AAC without a container, whose every frame says its rate and channels. The demuxer goes by the first one's.

use std::{fs::File, io, ops::Range};

use super::header::Header;

/// Recordings joined in one file.
const MAX_PARTS: usize = 1000;

/// The parts of a file that are decoded one after the other: more than one where AAC of different kinds was joined.
pub(super) fn parts(file: &File, start: u64) -> io::Result<Vec<Range<u64>>> {
    let (mut header, end) = (Header::new(file), file.metadata()?.len());
    let (mut parts, mut begin, mut place, mut kind) = (Vec::new(), start, start, None);
    while parts.len() < MAX_PARTS
        && let Some([0xFF, b, c, d, e, f]) = header.get(place)?
        && b & 0xF6 == 0xF0
    {
        // Profile and rate, and the channels, whose first bit is the byte's last.
        let this = (c & 0xFD, d & 0xC0);
        if kind.replace(this).is_some_and(|before| before != this) {
            parts.push(begin..place);
            begin = place;
        }
        let length = u64::from(d & 3) << 11 | u64::from(e) << 3 | u64::from(f) >> 5;
        if length < 7 {
            break;
        }
        place += length;
    }
    parts.push(begin..end);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_is_one_part_but_for_joined_aac_of_different_kinds() {
        // Frames of 8 bytes: 16 kHz mono and 44.1 kHz stereo.
        let (one, other) = (b"\xff\xf1\x60\x40\x01\x1f\xfcx", b"\xff\xf1\x50\x80\x01\x1f\xfcx");
        let parts = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            parts(&file, 0).unwrap()
        };
        assert_eq!(parts(&one.repeat(3)), std::slice::from_ref(&(0..24)));
        assert_eq!(parts(&[one.repeat(2), other.repeat(3), b"x".to_vec()].concat()), [0..16, 16..41]);
        assert_eq!(parts(b"\xff\xf1\x60\x40\0\0"), std::slice::from_ref(&(0..6)));
        assert_eq!(parts(b"RIFF"), std::slice::from_ref(&(0..4)));
    }
}
