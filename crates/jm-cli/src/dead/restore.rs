//! `jm dead replay --from FILE`: what was saved goes back.

mod done;

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

use self::done::DoneLines;
use super::{
    giver::{Given, Giver},
    glance::Trouble,
    letter::Letter,
    origin,
    pace::Pace,
    patience::Patience,
    progress::Progress,
    replay::{Arguments, End, NO_ORIGIN, Names, Tally, tell},
    saved::SavedLetter,
};
use crate::{exit::Code, failure::Failure, operator::Operator};

/// The longest line: the largest message of any broker, in base64, with its headers.
const MAX_LINE: u64 = 256 * 1024 * 1024;

pub(super) async fn run(
    arguments: &Arguments,
    path: &Path,
    queue: Option<&str>,
    operator: &Operator<'_>,
) -> Result<Code, Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::missing(format_args!("{}: {error}", path.display()));
    // A pipe without a writer would hold up opening it, and a signal with it.
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| unusable(&error))?;
    let metadata = file.metadata().map_err(|error| unusable(&error))?;
    if !metadata.is_file() {
        return Err(unusable(
            &"no regular file; --from takes a file of `jm dead drop --save`, by which it goes on later",
        ));
    }
    let length = metadata.len();
    let mut lines = Lines { path, reader: BufReader::new(file), number: 0, read: 0 };
    let mut restore = Restore {
        arguments,
        operator,
        done: DoneLines::open(path)?,
        giver: Some(Giver::open(operator).await?),
        names: Names::new(),
        tally: Tally::default(),
        pace: Pace::new(arguments.rate),
        patience: Patience::new(),
        progress: Progress::new(operator.output, "bytes", length),
    };
    let _attention = operator.interrupt.attend();
    let end = loop {
        if operator.interrupt.is_requested() {
            break Ok(End::Interrupted);
        }
        if arguments.limit == Some(restore.tally.replayed) {
            break Ok(End::Done);
        }
        let saved = match lines.next() {
            Ok(Some(saved)) => saved,
            Ok(None) => break Ok(End::Done),
            Err(failure) => break Err(failure),
        };
        restore.progress.reached(lines.read);
        if restore.done.has(lines.number) || queue.is_some_and(|queue| queue != saved.queue) {
            continue;
        }
        let letter = match saved.letter() {
            Ok(letter) => letter,
            Err(error) => break Err(lines.wrong(&error)),
        };
        if !arguments.filter.matches(&letter) {
            continue;
        }
        match restore.one(&letter, lines.number).await {
            Ok(None) => {}
            Ok(Some(end)) => break Ok(end),
            Err(failure) => break Err(failure),
        }
    };
    restore.progress.end();
    if let Some(giver) = restore.giver.take() {
        giver.close().await;
    }
    let before = restore.done.before();
    if before > 0 && !operator.output.is_json() {
        let done = restore.done.path().display();
        operator.output.note(format_args!("{before} were put back earlier, by {done}; without it all are put back"));
    }
    tell(&restore.tally, &path.display().to_string(), end, operator).await
}

struct Restore<'a> {
    arguments: &'a Arguments,
    operator: &'a Operator<'a>,
    done: DoneLines,
    giver: Option<Giver>,
    names: Names,
    tally: Tally,
    pace: Pace,
    patience: Patience,
    progress: Progress,
}

impl Restore<'_> {
    /// One line of the file, over as many connections as it takes.
    async fn one(&mut self, letter: &Letter, line: u64) -> Result<Option<End>, Failure> {
        let Some(target) = self.arguments.target(letter) else {
            self.tally.leave(NO_ORIGIN.to_owned());
            return Ok(None);
        };
        tokio::select! {
            biased;
            _ = self.operator.interrupt.requested() => return Ok(Some(End::Interrupted)),
            () = self.pace.wait() => {}
        }
        let properties = origin::properties(letter, &self.names.next(), None);
        loop {
            let trouble = match &mut self.giver {
                None => match Giver::open(self.operator).await {
                    Ok(giver) => {
                        self.giver = Some(giver);
                        continue;
                    }
                    Err(trouble) => trouble,
                },
                Some(giver) => match giver.give(&target, properties.clone(), &letter.body).await {
                    Ok(Given::Confirmed) => {
                        self.done.add(line)?;
                        self.tally.replayed += 1;
                        self.patience.renew();
                        return Ok(None);
                    }
                    Ok(Given::Refused(reason)) => {
                        self.tally.leave(reason);
                        return Ok(None);
                    }
                    Err(trouble) => {
                        self.tally.perhaps_twice += u64::from(matches!(trouble, Trouble::Lost(_)));
                        trouble
                    }
                },
            };
            self.giver = None;
            self.patience.bear(trouble, self.operator.interrupt, &self.progress).await?;
            if self.operator.interrupt.is_requested() {
                return Ok(Some(End::Interrupted));
            }
        }
    }
}

/// A file's letters.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    number: u64,
    read: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<SavedLetter>, Failure> {
        let mut line = String::new();
        let read = self.reader.by_ref().take(MAX_LINE).read_line(&mut line);
        self.number += 1;
        let read = read.map_err(|error| match error.kind() {
            ErrorKind::InvalidData => self.wrong("no UTF-8"),
            _ => Failure::new(Code::Io, format_args!("{}: {error}", self.path.display())),
        })?;
        self.read += read as u64;
        if read == 0 {
            return Ok(None);
        }
        // The process that wrote it was killed: its message is still a dead letter, since the line was never on the disk.
        if !line.ends_with('\n') && read < usize::try_from(MAX_LINE).unwrap_or(usize::MAX) {
            return Ok(None);
        }
        SavedLetter::read(&line).map(Some).map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &str) -> Failure {
        let (path, number) = (self.path.display(), self.number);
        Failure::new(
            Code::Found,
            format_args!(
                "{path}, line {number}: {error}; a file of `jm dead drop --save` has a dead letter on each line"
            ),
        )
    }
}
