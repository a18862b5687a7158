//! What an MP4 file says of its tracks beyond what the demuxer reads: which are on, and which part of each is played.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Boxes that are looked at in one file; a film has some hundred.
const MAX_BOXES: usize = 10_000;
/// Tracks of one file.
const MAX_TRACKS: usize = 100;
/// Parts of one track that are played; an editor on a phone leaves one or two.
const MAX_EDITS: usize = 1000;
/// What a box has before its content.
const BOX_HEADER: u64 = 8;

/// A file's tracks, in order.
#[derive(Debug, Default)]
pub(super) struct Movie {
    pub(super) tracks: Vec<Track>,
}

/// A track, of any kind.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) id: u32,
    /// Whether a player plays it.
    pub(super) enabled: bool,
    /// `soun`, `vide` and others.
    pub(super) kind: [u8; 4],
    /// The name of its codec's box: `mp4a`, `samr`, `enca`.
    pub(super) codec: [u8; 4],
    /// What is played, in order; `None` is all of it.
    pub(super) edits: Option<Vec<Edit>>,
}

/// A part of a track that is played, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Edit {
    /// Where it begins in the track; `None` is silence.
    pub(super) start: Option<f64>,
    /// How long it is; infinite where the length was left open.
    pub(super) length: f64,
}

impl Movie {
    /// Reads the boxes of a file that begins at `start`; `None` if it is no MP4 file.
    pub(super) fn read(file: &File, start: u64) -> io::Result<Option<Self>> {
        let end = file.metadata()?.len();
        let mut boxes = Boxes { file, left: MAX_BOXES };
        let is_mp4 = boxes.get(start + 4)?.is_some_and(|name: [u8; 4]| &name == b"ftyp");
        if !is_mp4 {
            return Ok(None);
        }
        let mut movie = Self::default();
        if let Some(moov) = boxes.find(start..end, *b"moov")? {
            boxes.movie(moov, &mut movie)?;
        }
        Ok(Some(movie))
    }
}

struct Boxes<'a> {
    file: &'a File,
    left: usize,
}

impl Boxes<'_> {
    fn get<const N: usize>(&self, place: u64) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.file.read_exact_at(&mut bytes, place) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn u32(&self, place: u64) -> io::Result<u32> {
        Ok(self.get(place)?.map_or(0, u32::from_be_bytes))
    }

    fn u64(&self, place: u64) -> io::Result<u64> {
        Ok(self.get(place)?.map_or(0, u64::from_be_bytes))
    }

    /// The next box of a part of the file, which then begins behind it: its name and its content.
    fn next(&mut self, part: &mut Range<u64>) -> io::Result<Option<([u8; 4], Range<u64>)>> {
        if self.left == 0 || part.start.saturating_add(BOX_HEADER) > part.end {
            return Ok(None);
        }
        self.left -= 1;
        let Some([a, b, c, d, name @ ..]) = self.get::<8>(part.start)? else { return Ok(None) };
        let (header, length) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (BOX_HEADER, part.end - part.start),
            1 => (BOX_HEADER + 8, self.u64(part.start + BOX_HEADER)?),
            length => (BOX_HEADER, length.into()),
        };
        if length < header {
            return Ok(None);
        }
        let end = part.start.saturating_add(length).min(part.end);
        let content = (part.start + header).min(end)..end;
        part.start = end;
        Ok(Some((name, content)))
    }

    fn find(&mut self, mut part: Range<u64>, wanted: [u8; 4]) -> io::Result<Option<Range<u64>>> {
        while let Some((name, content)) = self.next(&mut part)? {
            if name == wanted {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    fn path(&mut self, part: &Range<u64>, names: &[[u8; 4]]) -> io::Result<Option<Range<u64>>> {
        let mut found = Some(part.clone());
        for name in names {
            let Some(within) = found else { return Ok(None) };
            found = self.find(within, *name)?;
        }
        Ok(found)
    }

    fn movie(&mut self, moov: Range<u64>, movie: &mut Movie) -> io::Result<()> {
        let timescale = match self.find(moov.clone(), *b"mvhd")? {
            Some(mvhd) => self.timescale(&mvhd)?,
            None => 0.0,
        };
        let mut rest = moov;
        while let Some((name, trak)) = self.next(&mut rest)? {
            if &name == b"trak" && movie.tracks.len() < MAX_TRACKS {
                movie.tracks.push(self.track(&trak, timescale)?);
            }
        }
        Ok(())
    }

    /// Of a box that has it behind two times, of four or of eight bytes.
    fn timescale(&self, content: &Range<u64>) -> io::Result<f64> {
        let wide = self.get(content.start)?.is_some_and(|[version]: [u8; 1]| version == 1);
        Ok(self.u32(content.start + if wide { 20 } else { 12 })?.into())
    }

    fn track(&mut self, trak: &Range<u64>, movie_timescale: f64) -> io::Result<Track> {
        let mut track = Track::default();
        if let Some(tkhd) = self.find(trak.clone(), *b"tkhd")? {
            let head = self.u32(tkhd.start)?;
            track.enabled = head & 1 == 1;
            track.id = self.u32(tkhd.start + if head >> 24 == 1 { 20 } else { 12 })?;
        }
        let timescale = match self.path(trak, &[*b"mdia", *b"mdhd"])? {
            Some(mdhd) => self.timescale(&mdhd)?,
            None => 0.0,
        };
        if let Some(hdlr) = self.path(trak, &[*b"mdia", *b"hdlr"])? {
            track.kind = self.get(hdlr.start + 8)?.unwrap_or_default();
        }
        if let Some(stsd) = self.path(trak, &[*b"mdia", *b"minf", *b"stbl", *b"stsd"])? {
            track.codec = self.get(stsd.start + 12)?.unwrap_or_default();
        }
        if let Some(elst) = self.path(trak, &[*b"edts", *b"elst"])?
            && timescale > 0.0
            && movie_timescale > 0.0
        {
            track.edits = self.edits(&elst, timescale, movie_timescale)?;
        }
        Ok(track)
    }

    #[expect(clippy::cast_precision_loss, reason = "times in seconds")]
    fn edits(&self, elst: &Range<u64>, timescale: f64, movie_timescale: f64) -> io::Result<Option<Vec<Edit>>> {
        let wide = self.u32(elst.start)? >> 24 == 1;
        let (count, size) = (self.u32(elst.start + 4)? as usize, if wide { 20 } else { 12 });
        let mut edits = Vec::new();
        for index in 0..count.min(MAX_EDITS) {
            let place = elst.start + 8 + index as u64 * size;
            if place + size > elst.end {
                break;
            }
            let (length, start) = if wide {
                (self.u64(place)?, self.u64(place + 8)?.cast_signed())
            } else {
                (u64::from(self.u32(place)?), i64::from(self.u32(place + 4)?.cast_signed()))
            };
            // A length of nothing is that of a fragmented file, and means all there is.
            let length = match length {
                0 if start >= 0 => f64::INFINITY,
                length => length as f64 / movie_timescale,
            };
            edits.push(Edit { start: (start >= 0).then_some(start as f64 / timescale), length });
        }
        // Silence alone would be no track at all.
        let any = edits.iter().any(|edit| edit.start.is_some());
        Ok(any.then_some(edits))
    }
}
