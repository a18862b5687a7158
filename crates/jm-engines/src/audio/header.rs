//! What stands before the sound in a file, made harmless before a decoder reads it.
//!
//! Tags and pictures are of no use here, and take many times their length in memory once they are read. Lengths that a
//! recorder left open are filled in.

use std::{fs::File, io, os::unix::fs::FileExt};

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

/// As much as is looked at in one place.
const WINDOW_BYTES: usize = 64 * 1024;
/// The length of the longest thing that is looked at.
const LOOKED_AT: usize = 16;

/// Mends the header in place, and returns where it begins: behind the tags at the beginning.
pub(super) fn mend(file: &File) -> io::Result<u64> {
    let mut header = Header::new(file);
    let start = header.tags()?;
    if header.get(start)? == Some(*b"fLaC") {
        header.flac(start)?;
    } else if matches!(header.get(start)?, Some([b'R', b'I', b'F', b'F'] | [b'R', b'F', b'6', b'4']))
        && header.get(start + 8)? == Some(*b"WAVE")
    {
        header.wav(start)?;
    }
    Ok(start)
}

/// A file, of which a part is in memory.
pub(super) struct Header<'a> {
    file: &'a File,
    window: Vec<u8>,
    place: u64,
}

impl<'a> Header<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, window: Vec::new(), place: 0 }
    }

    /// The bytes at a place; `None` beyond the end.
    pub(super) fn get<const N: usize>(&mut self, place: u64) -> io::Result<Option<[u8; N]>> {
        Ok(self.at(place)?.first_chunk().copied())
    }

    /// What there is at a place: [`LOOKED_AT`] bytes at least, but for the file's end.
    fn at(&mut self, place: u64) -> io::Result<&[u8]> {
        let within = place.checked_sub(self.place).and_then(|from| usize::try_from(from).ok());
        if let Some(from) = within.filter(|from| from + LOOKED_AT <= self.window.len()) {
            return Ok(&self.window[from..]);
        }
        self.window.resize(WINDOW_BYTES, 0);
        let mut length = 0;
        while length < WINDOW_BYTES {
            match self.file.read_at(&mut self.window[length..], place.saturating_add(length as u64))? {
                0 => break,
                count => length += count,
            }
        }
        self.window.truncate(length);
        self.place = place;
        Ok(&self.window)
    }

    fn put(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        self.window.clear();
        self.file.write_all_at(bytes, place)
    }

    /// The length of all ID3 tags at the beginning, with the zeros that fill them up.
    fn tags(&mut self) -> io::Result<u64> {
        let (mut length, end) = (0, self.file.metadata()?.len());
        while let Some([b'I', b'D', b'3', _, _, flags, a, b, c, d]) = self.get::<ID3_HEADER>(length)? {
            // Seven bits each; anything else is no tag.
            if (a | b | c | d) & 0x80 != 0 {
                break;
            }
            let content = [a, b, c, d].iter().fold(0, |sum, &bits| sum << 7 | u64::from(bits));
            let footer = if flags & ID3_FOOTER == 0 { 0 } else { ID3_HEADER };
            length = (length + content + (ID3_HEADER + footer) as u64).min(end);
            loop {
                let there = self.at(length)?;
                let zeros = there.iter().take_while(|&&byte| byte == 0).count();
                let all = zeros == there.len();
                length += zeros as u64;
                if !all || zeros == 0 {
                    break;
                }
            }
        }
        Ok(length)
    }

    /// Lets no length of the file as a whole count, and fills in that of the sound if it was left open.
    fn wav(&mut self, start: u64) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let whole = self.get(start + 4)?.map(u32::from_le_bytes);
        let honest = whole.is_some_and(|length| u64::from(length) + 8 == end - start);
        // Some recorders leave 0 or the header's own length there, and chunks would have to lie within it. The long form
        // is the short one with its true lengths in another place, and 4 GiB are never fetched.
        let open = u32::MAX.to_le_bytes();
        self.put(start, &[&b"RIFF"[..], &open].concat())?;
        let mut place = start + 12;
        while let Some([a, b, c, d, length @ ..]) = self.get::<8>(place)? {
            let (length, begin) = (u32::from_le_bytes(length), place + 8);
            if [a, b, c, d] == *b"data" {
                let there = u32::try_from(end - begin).unwrap_or(u32::MAX);
                // Nothing at all may be meant so, with other chunks behind it, if the file's length is right.
                let left_open = if length == 0 { !honest } else { length >= WAV_OPEN.max(there) };
                if left_open {
                    self.put(place + 4, &there.to_le_bytes())?;
                }
                return Ok(());
            }
            // Chunks begin at even places.
            place = begin + u64::from(length) + u64::from(length % 2);
        }
        Ok(())
    }

    /// Turns all blocks but the one that describes the sound into padding.
    fn flac(&mut self, start: u64) -> io::Result<()> {
        let mut place = start + 4;
        while let Some([kind, a, b, c]) = self.get(place)? {
            if FLAC_SILENT.contains(&(kind & !FLAC_LAST)) {
                self.put(place, &[kind & FLAC_LAST | FLAC_PADDING])?;
            }
            if kind & FLAC_LAST != 0 {
                break;
            }
            place += 4 + u64::from(u32::from_be_bytes([0, a, b, c]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(bytes: impl Into<Vec<u8>>) -> Vec<u8> {
        let mut bytes = bytes.into();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let start = mend(&file).unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes.split_off(usize::try_from(start).unwrap())
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
            u32::from_le_bytes(file[28..32].try_into().unwrap())
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
