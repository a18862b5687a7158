//! A program that does not outlive us.
//!
//! It has a process group of its own, which is killed when we are done with it: Ctrl-C then reaches only us, and nothing
//! the program has started remains. Its standard input is a pipe that we never write to. The pipe's end tells it
//! that we are gone, should somebody kill us.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, PipeReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::failure::Failure;

/// How often the program is looked at, which is how quickly Ctrl-C ends it.
const EVERY: Duration = Duration::from_millis(50);
/// What is kept of the program's output: its end.
const MAX_LOG: usize = 256 * 1024;
/// How long something it has left behind may keep its output open.
const DRAIN: Duration = Duration::from_secs(2);

/// How a program ended, and the end of what it said.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

/// Runs it to its end, or until `check` fails, or the time is up. `what` is its name in errors.
pub(crate) fn run(
    command: &mut Command,
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<(), Failure>,
) -> Result<Ended, Failure> {
    let begun = Instant::now();
    let program = Path::new(command.get_program()).to_owned();
    let failed = |action| Failure::io(action, &program);
    let (mut child, log) = start(command).map_err(failed("start"))?;
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(failed("wait for"))? {
            break status;
        }
        check()?;
        if begun.elapsed() > limit {
            return Err(Failure::Endless { what: what.to_owned(), limit });
        }
        thread::sleep(EVERY);
    };
    Ok(Ended { status, log: log.recv_timeout(DRAIN).unwrap_or_default() })
}

/// The program, and its output once that has been closed. Not by a file: the disk may be full, which it would tell.
fn start(command: &mut Command) -> io::Result<(Child, Receiver<String>)> {
    let (output, input) = io::pipe()?;
    command.process_group(0).stdin(Stdio::piped()).stdout(input.try_clone()?).stderr(input);
    let child = Child(command.spawn()?);
    // The command has our copies of the pipe's other end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, log) = channel();
    thread::spawn(move || sender.send(end_of(output)));
    Ok((child, log))
}

struct Child(process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // Until it has been waited for, its number is nobody else's.
        if let Ok(None) = self.0.try_wait()
            && let Ok(group) = i32::try_from(self.0.id())
        {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

fn end_of(mut output: PipeReader) -> String {
    let mut kept = VecDeque::new();
    let mut chunk = [0; 4096];
    loop {
        match output.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(count) => kept.extend(&chunk[..count]),
        }
        kept.drain(..kept.len().saturating_sub(MAX_LOG));
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed_with_all_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $! >\"$0\"; wait"]).arg(&pid);
        let begun = Instant::now();
        // Long enough for the shell to have started what is to be killed.
        let Err(failure) = run(&mut command, "sh", Duration::from_secs(2), || Ok(())) else { panic!("it has ended") };
        assert!(begun.elapsed() < Duration::from_mins(1));
        assert_eq!(
            failure.to_string(),
            "sh has not ended after 2s, and was killed; see whether it ends when run by hand"
        );
        let started = format!("/proc/{}/stat", std::fs::read_to_string(pid).unwrap().trim());
        // Killed, though whoever inherits it may not have taken notice yet.
        let runs = || std::fs::read_to_string(&started).is_ok_and(|stat| !stat.contains(") Z "));
        while runs() {
            assert!(begun.elapsed() < Duration::from_mins(1), "{started}");
            thread::sleep(EVERY);
        }
    }

    #[test]
    fn a_program_that_ends_in_time_is_heard_to_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = run(&mut command, "sh", Duration::from_mins(1), || Ok(())).unwrap();
        assert_eq!((ended.status.code(), ended.log.as_str()), (Some(3), "out\nerr\n"));
    }
}
