//! The log's last step: a line is written, or counted as lost.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::escape::escaped_json;

/// Writes whole lines, and escapes in them what a terminal or a viewer would obey and the formatter lets through: DEL, C1
/// and marks of direction. C0 is left to the formatter: it escapes what comes from elsewhere, and writes its own colours.
pub(super) struct Lines<W> {
    output: W,
    lost: Lost,
}

/// How many lines could not be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<AtomicUsize>);

impl Lost {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<W: Write> Lines<W> {
    pub(super) fn new(output: W) -> (Self, Lost) {
        let lost = Lost::default();
        (Self { output, lost: lost.clone() }, lost)
    }
}

impl<W: Write> Write for Lines<W> {
    /// A line at a time, as the logs' thread writes them. Never fails: that thread passes over errors.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The formatter writes UTF-8, and only whole lines come here.
        let text = escaped_json(&String::from_utf8_lossy(line));
        let written = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        if written.is_err() {
            self.lost.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many writes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_onto_a_disk_is_counted() {
        let (mut lines, lost) = Lines::new(Disk(2));
        for _ in 0..5 {
            lines.write_all(b"{}\n").unwrap();
        }
        assert_eq!(lost.count(), 3);
    }

    #[test]
    fn c1_del_and_bidi_are_escaped_and_colours_stay() {
        let mut written = Vec::new();
        Lines::new(&mut written)
            .0
            .write_all("\u{1b}[32mINFO\u{1b}[0m a\u{9b}2J\u{7f}\u{202e}b 你好\n".as_bytes())
            .unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "\u{1b}[32mINFO\u{1b}[0m a\\u009b2J\\u007f\\u202eb 你好\n");
    }
}
