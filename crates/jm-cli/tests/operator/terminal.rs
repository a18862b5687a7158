//! A terminal, as an operator sits at one: what `jm` writes is drawn, and what is typed goes through the terminal's own
//! driver, so that Ctrl-C is a signal and Ctrl-D the end of input.

use std::{num::NonZeroU16, time::Duration};

use anyhow::{Context as _, Result, bail};
use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

const LIMIT: Duration = Duration::from_mins(1);
/// What has scrolled off the top is kept, so that a test can tell whether anything has.
const SCROLLBACK: usize = 1000;

pub(crate) const CTRL_C: &str = "\u{3}";
pub(crate) const CTRL_D: &str = "\u{4}";
pub(crate) const ENTER: &str = "\r";

/// A running `jm` with a terminal, and what is to be seen there.
pub(crate) struct Terminal {
    child: Child,
    keyboard: OwnedWritePty,
    drawn: watch::Receiver<Drawn>,
}

/// What has been written to a terminal.
struct Drawn {
    parser: vt100::Parser,
    written: Vec<u8>,
    is_closed: bool,
}

/// What a terminal showed when `jm` had ended.
pub(crate) struct Seen {
    pub(crate) screen: vt100::Screen,
    /// All that was written to the terminal, with its control sequences.
    pub(crate) written: String,
    /// What was written to a pipe instead.
    pub(crate) piped: String,
    /// -1 for a signal.
    pub(crate) code: i32,
}

/// Which of its outputs `jm` has elsewhere than on the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piped {
    Nothing,
    Out,
    Err,
}

impl Terminal {
    /// Starts it on a terminal of so many rows and columns.
    pub(crate) fn start(command: Command, arguments: &[&str], (rows, columns): (u16, u16)) -> Result<Self> {
        Self::start_with(command, arguments, (rows, columns), Piped::Nothing)
    }

    pub(crate) fn start_with(
        command: Command,
        arguments: &[&str],
        (rows, columns): (u16, u16),
        piped: Piped,
    ) -> Result<Self> {
        let (terminal, jms_end) = pty_process::open()?;
        terminal.resize(Size::new(rows, columns))?;
        let has_term = command.as_std().get_envs().any(|(name, _)| name == "TERM");
        let mut command = pty_process::Command::from(command).args(arguments);
        if !has_term {
            command = command.env("TERM", "xterm-256color");
        }
        command = match piped {
            Piped::Nothing => command,
            Piped::Out => command.stdout(std::process::Stdio::piped()),
            Piped::Err => command.stderr(std::process::Stdio::piped()),
        };
        let child = command.spawn(jms_end).context("jm did not start")?;
        let (from_jm, keyboard) = terminal.into_split();
        let size = |number| NonZeroU16::new(number).context("a terminal without rows or columns");
        let parser = vt100::Parser::new(size(rows)?, size(columns)?, SCROLLBACK);
        let (sender, drawn) = watch::channel(Drawn { parser, written: Vec::new(), is_closed: false });
        tokio::spawn(draw(from_jm, sender));
        Ok(Self { child, keyboard, drawn })
    }

    /// Waits until the screen is as wanted.
    pub(crate) async fn until(&mut self, what: &str, is_seen: impl Fn(&vt100::Screen) -> bool) -> Result<()> {
        let is_over = |drawn: &Drawn| drawn.is_closed || is_seen(drawn.parser.screen());
        // Judged on the screen that ended the waiting: the next moment's may be half drawn.
        let is_there = match timeout(LIMIT, self.drawn.wait_for(is_over)).await {
            Ok(drawn) => is_seen(drawn?.parser.screen()),
            Err(_) => false,
        };
        if !is_there {
            bail!("{what} was not seen:\n{}", self.screen().contents());
        }
        Ok(())
    }

    /// Waits until the screen has this text.
    pub(crate) async fn until_text(&mut self, text: &str) -> Result<()> {
        self.until(text, |screen| screen.contents().contains(text)).await
    }

    pub(crate) fn screen(&self) -> vt100::Screen {
        self.drawn.borrow().parser.screen().clone()
    }

    pub(crate) async fn types(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).await.context("typing")
    }

    /// Waits until `jm` has ended.
    pub(crate) async fn end(mut self) -> Result<Seen> {
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let pipe = async move {
            let mut piped = String::new();
            match (out, err) {
                (Some(mut out), _) => out.read_to_string(&mut piped).await?,
                (None, Some(mut err)) => err.read_to_string(&mut piped).await?,
                (None, None) => 0,
            };
            anyhow::Ok(piped)
        };
        let ended = async { tokio::join!(pipe, self.drawn.wait_for(|drawn| drawn.is_closed), self.child.wait()) };
        // Should it not end, it is killed with its handle.
        let (piped, drawn, status) = timeout(LIMIT, ended).await.context("jm did not end")?;
        let drawn = drawn?;
        Ok(Seen {
            screen: drawn.parser.screen().clone(),
            // At Ctrl-C a terminal's driver throws away what is on its way, and cuts letters in two.
            written: String::from_utf8_lossy(&drawn.written).into_owned(),
            piped: piped?,
            code: status?.code().unwrap_or(-1),
        })
    }

    /// Closes the terminal's window.
    pub(crate) fn hang_up(self) -> Child {
        self.child
    }
}

/// As a terminal does: all the time, whatever else happens.
async fn draw(mut from_jm: OwnedReadPty, drawn: watch::Sender<Drawn>) {
    let mut bytes = [0; 4096];
    loop {
        // The kernel tells by an error that nobody has the other end any more.
        let read = tokio::select! {
            read = from_jm.read(&mut bytes) => read.unwrap_or(0),
            () = drawn.closed() => return,
        };
        drawn.send_modify(|drawn| {
            drawn.parser.process(&bytes[..read]);
            drawn.written.extend_from_slice(&bytes[..read]);
            drawn.is_closed = read == 0;
        });
        if read == 0 {
            return;
        }
    }
}

impl Seen {
    /// The lines of the screen, without the blank ones below.
    pub(crate) fn lines(&self) -> Vec<String> {
        lines(&self.screen)
    }

    /// Whether anything was coloured, bold or dimmed.
    pub(crate) fn is_styled(&self) -> bool {
        is_styled(&self.written)
    }
}

/// Whether a text has a sequence that colours, makes bold or dims.
pub(crate) fn is_styled(written: &str) -> bool {
    let is_style =
        |rest: &str| rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';').starts_with('m');
    written.split("\u{1b}[").skip(1).any(is_style)
}

/// The lines of a screen, without the blank ones below.
pub(crate) fn lines(screen: &vt100::Screen) -> Vec<String> {
    let mut lines: Vec<String> = screen.contents().lines().map(|line| line.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The first cell of a text on the screen.
pub(crate) fn cell_of<'a>(screen: &'a vt100::Screen, text: &str) -> Option<&'a vt100::Cell> {
    let columns = screen.size().1.get();
    let rows: Vec<String> = screen.rows(0, columns).collect();
    let (row, line) = rows.iter().enumerate().find(|(_, line)| line.contains(text))?;
    let before = line.split(text).next()?;
    screen.cell(row.try_into().ok()?, console::measure_text_width(before).try_into().ok()?)
}
