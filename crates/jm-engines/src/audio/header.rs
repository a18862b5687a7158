//! What stands before the sound in a file, made harmless before a decoder reads it.
//!
//! Tags and pictures are of no use here, and take many times their length in memory once they are read. Lengths that a
//! recorder left open are filled in.

/// What an ID3 tag has before its content, and once more behind it if its flags say so.
const ID3_HEADER: usize = 10;
/// The flag of a tag that has a footer.
const ID3_FOOTER: u8 = 0x10;
/// FLAC's block that is skipped.
const FLAC_PADDING: u8 = 1;
/// FLAC's blocks of an application, places to seek to, comments, tracks and pictures.
const FLAC_SILENT: std::ops::RangeInclusive<u8> = 2..=6;
/// Marks FLAC's last block before the sound.
const FLAC_LAST: u8 = 0x80;
/// Recorders that do not know the length beforehand write 2 GiB, or 4 GiB, or a little less. No whole WAV file of that
/// length is ever fetched and found shorter, but for one that was cut off beyond any use.
const WAV_OPEN: u32 = 0x7FFF_0000;

/// Takes tags off the beginning, and mends the header behind them.
pub(super) fn mend(file: &mut Vec<u8>) {
    file.drain(..tags(file));
    if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WAVE") {
        wav(file);
    } else if file.starts_with(b"fLaC") {
        flac(file);
    }
}

/// The length of all ID3 tags at the beginning, with the zeros that fill them up.
fn tags(file: &[u8]) -> usize {
    let mut length = 0;
    while let Some(&[b'I', b'D', b'3', _, _, flags, a, b, c, d]) = file[length..].first_chunk::<ID3_HEADER>() {
        // Seven bits each; anything else is no tag.
        if (a | b | c | d) & 0x80 != 0 {
            break;
        }
        let content = [a, b, c, d].iter().fold(0, |sum, &bits| sum << 7 | usize::from(bits));
        let footer = if flags & ID3_FOOTER == 0 { 0 } else { ID3_HEADER };
        length = (length + ID3_HEADER + content + footer).min(file.len());
        length += file[length..].iter().take_while(|&&byte| byte == 0).count();
    }
    length
}

/// Lets no length of the file as a whole count, and fills in that of the sound if it was left open.
fn wav(file: &mut [u8]) {
    let honest = u32_at(file, 4).is_some_and(|length| length as usize + 8 == file.len());
    // Some recorders leave 0 or the header's own length there, and chunks would have to lie within it.
    file[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut place = 12;
    while let Some(length) = u32_at(file, place + 4) {
        let begin = place + 8;
        if &file[place..place + 4] == b"data" {
            let there = u32::try_from(file.len() - begin).unwrap_or(u32::MAX);
            // Nothing at all may be meant so, with other chunks behind it, if the file's length is right.
            let left_open = if length == 0 { !honest } else { length >= WAV_OPEN.max(there) };
            if left_open {
                file[place + 4..begin].copy_from_slice(&there.to_le_bytes());
            }
            return;
        }
        // Chunks begin at even places.
        place = begin.saturating_add(length as usize).saturating_add(length as usize % 2);
    }
}

/// Turns all blocks but the one that describes the sound into padding.
fn flac(file: &mut [u8]) {
    let mut place = 4;
    while let Some(&[kind, a, b, c]) = file.get(place..).and_then(<[u8]>::first_chunk::<4>) {
        if FLAC_SILENT.contains(&(kind & !FLAC_LAST)) {
            file[place] = kind & FLAC_LAST | FLAC_PADDING;
        }
        if kind & FLAC_LAST != 0 {
            return;
        }
        place += 4 + u32::from_be_bytes([0, a, b, c]) as usize;
    }
}

fn u32_at(file: &[u8], place: usize) -> Option<u32> {
    file.get(place..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(bytes: impl Into<Vec<u8>>) -> Vec<u8> {
        let mut file = bytes.into();
        mend(&mut file);
        file
    }

    #[test]
    fn tags_are_taken_off_with_their_padding_and_footers_and_nothing_else_is() {
        let empty = b"ID3\x04\0\0\0\0\0\0";
        assert_eq!(mended([&empty.repeat(3)[..], b"\0\0sound"].concat()), b"sound");
        assert_eq!(mended([&b"ID3\x03\0\0\0\0\x01\x02"[..], &[7; 130], b"sound"].concat()), b"sound");
        assert_eq!(mended([&b"ID3\x04\0\x10\0\0\0\x02ab3DI-------"[..], b"sound"].concat()), b"sound");
        for whole in [&b"ID3\x04\0\0\0\0\0"[..], b"ID3\x04\0\0\0\0\0\x80sound", b"\0\0ID3\x04\0\0\0\0\0\0", b""] {
            assert_eq!(mended(whole), whole);
        }
        assert_eq!(mended(*b"ID3\x04\0\0\x7f\x7f\x7f\x7f....."), b"");
    }

    #[test]
    fn an_open_length_becomes_what_is_there_and_an_honest_one_stays() {
        let wav = |riff: u32, data: u32| {
            let head = b"WAVEodd \x03\0\0\0abc\0data";
            let file = mended([b"RIFF", &riff.to_le_bytes(), &head[..], &data.to_le_bytes(), b"123456"].concat());
            u32_at(&file, 28).unwrap()
        };
        for open in [0x7FFF_0000, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFDB, u32::MAX, 0] {
            assert_eq!(wav(0, open), 6, "{open:x}");
        }
        for honest in [1, 6, 7, 0x7FFE_FFFF] {
            assert_eq!(wav(u32::MAX, honest), honest);
        }
        assert_eq!(wav(30, 0), 0);
    }

    #[test]
    fn of_a_flac_file_only_the_description_and_the_sound_stay() {
        let file = b"fLaC\x00\0\0\x02xx\x04\0\0\x01c\x06\0\0\x00\x85\0\0\x01t\x04\xff sound";
        assert_eq!(mended(*file), b"fLaC\x00\0\0\x02xx\x01\0\0\x01c\x01\0\0\x00\x81\0\0\x01t\x04\xff sound");
        assert_eq!(mended(*b"fLaC\x04\xff\xff\xff"), b"fLaC\x01\xff\xff\xff");
    }
}
