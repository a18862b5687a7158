//! A line of a history: time, letter, numbers, such as `83125 d 12 3 44 72057594037927940 0`.

use std::io::{self, ErrorKind};

use super::{Event, What};

/// A value that a line holds as a number.
pub trait Field: Sized {
    /// As a number.
    fn number(self) -> u64;
    /// From a number, if it is one of these.
    fn of(number: u64) -> Option<Self>;
}

macro_rules! integers {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn number(self) -> u64 {
                u64::from(self)
            }

            fn of(number: u64) -> Option<Self> {
                Self::try_from(number).ok()
            }
        }
    )+};
}

integers!(u8, u16, u32, u64);

impl Field for bool {
    fn number(self) -> u64 {
        u64::from(self)
    }

    fn of(number: u64) -> Option<Self> {
        Some(number != 0)
    }
}

/// Appends an event's parts to a line.
pub(super) struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn letter(&mut self, letter: u8) {
        self.0.extend([b' ', letter]);
    }

    pub(super) fn field(&mut self, number: u64) {
        self.0.push(b' ');
        digits(self.0, number);
    }
}

/// Numbers are most of a history: no formatting machinery for them.
fn digits(line: &mut Vec<u8>, mut number: u64) {
    let start = line.len();
    loop {
        line.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line[start..].reverse();
}

impl Event {
    /// Appends the event's line.
    pub(crate) fn write(&self, line: &mut Vec<u8>) {
        digits(line, self.at);
        self.what.write(&mut Writer(line));
        line.push(b'\n');
    }

    /// Reads a line, without its end.
    pub(crate) fn read(line: &[u8]) -> io::Result<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let parsed = (|| {
            let at = number(words.next()?)?;
            let &[letter] = words.next()? else { return None };
            let what = What::read(letter, &mut words.map_while(number))?;
            Some(Self { at, what })
        })();
        let shown = || String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        parsed.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("no event: {:?}", shown())))
    }
}

fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{FaultKind, Outcome, Role, Verdict},
        message::{Id, Queue},
    };

    #[test]
    fn what_is_written_is_read_again() {
        let id = Id::message(Queue::Again, 3, u64::from(u32::MAX));
        let events = [
            What::Started { process: 7, slot: 2, role: Role::Worker, queue: Queue::Done },
            What::FaultBegan { fault: 1, kind: FaultKind::LeaderKill, slot: 255 },
            What::Delivered { connection: u32::MAX, channel: 9, tag: u64::MAX, id: id.answer(), redelivered: true },
            What::SettledBy { connection: 1, channel: 2, tag: 3, multiple: false, verdict: Verdict::Requeue },
            What::RunEnded { process: 1, id, outcome: Outcome::Abort },
            What::Quiet {},
        ];
        for what in events {
            let mut line = Vec::new();
            Event { at: 12_345, what }.write(&mut line);
            assert_eq!(line.pop(), Some(b'\n'));
            assert_eq!(Event::read(&line).unwrap(), Event { at: 12_345, what });
        }
    }

    #[test]
    fn a_line_that_was_cut_is_an_error_that_shows_it() {
        for cut in ["", "12", "12 d 1 2 3", "12 Q 99 1 1 1", "x d 1", "12 ? 1"] {
            let error = Event::read(cut.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("{cut:?}")), "{error}");
        }
    }
}
