//! Decoding in a process of its own, which strangers' files may kill.
//!
//! ```text
//! worker:  file in memory ──stdin──> child: limits, then decode() ──stdout──> frames of samples, and how it ended
//! ```
//!
//! What a file says of itself sizes what its decoder allocates, in more places than anybody can look at. So the child has
//! a limit for its memory and one for its time, and can open nothing: no file, no socket, no other program's memory. It
//! is this program once more, started with [`ARGUMENT`].

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::PathBuf,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::{
    resource::{Resource, UsageWho, getrusage, setrlimit},
    signal::Signal,
};
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    Audio,
    decode::{Failure, decode},
    samples_in,
};
use crate::error::EngineError;

/// What makes this program the child that decodes. It is no option: people have no use for it.
const ARGUMENT: &str = "--decode-a-recording-from-stdin";
/// The memory that a child may have beyond what the program itself takes. The tables of a day's recording need a tenth.
const MAX_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// The processor time that a child may take before it has decoded anything.
const MAX_CPU: Duration = Duration::from_secs(20);
/// And a second more for each so many that it has decoded. Slow machines decode an hour in a minute.
const SECONDS_DECODED_IN_ONE: u64 = 30;
/// The processor time after which there is no more, however much is decoded.
const MAX_CPU_IN_ALL: Duration = Duration::from_mins(30);
/// The longest message from a child.
const MAX_FRAME_BYTES: usize = 256 * 1024;
/// What is read of a child's last words.
const MAX_WORDS_BYTES: u64 = 4096;
/// The exit code of a child that could not set its limits.
const NO_LIMITS: u8 = 3;

/// Samples, as bytes.
const SAMPLES: u8 = b's';
/// The end, with all samples sent.
const DONE: u8 = b'd';
/// The end, with what is wrong with the file.
const REFUSED: u8 = b'r';

/// The program that decodes, and how it is started.
#[derive(Clone, Debug)]
pub struct Decoder {
    program: PathBuf,
}

impl Decoder {
    /// This program, whose `main` has to begin with [`decode_if_asked`].
    ///
    /// # Errors
    ///
    /// The system does not say which file this program is.
    pub fn this_program() -> io::Result<Self> {
        // The link, and not where it leads: that may have been replaced by another version since.
        let link = PathBuf::from("/proc/self/exe");
        Ok(Self { program: if link.exists() { link } else { env::current_exe()? } })
    }

    /// Another program that begins with [`decode_if_asked`].
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Decodes the file in a child, which ends with this future.
    pub(super) async fn decode(&self, file: File, max_duration: Duration) -> Result<Audio, EngineError> {
        let failed = |error: io::Error| EngineError::retryable(format!("the process that decodes: {error}"));
        let mut child = Command::new(&self.program)
            .arg(ARGUMENT)
            .arg(max_duration.as_nanos().to_string())
            // Secrets are in it.
            .env_clear()
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| EngineError::operator(format!("the process that decodes cannot be started: {error}")))?;
        let most = samples_in(max_duration);
        let ending = Self::listen(&mut child, most).await.map_err(failed)?;
        if ending.is_some() {
            child.wait().await.map_err(failed)?;
        }
        match ending {
            Some(Ok(samples)) => Ok(Audio::from_samples(samples)),
            Some(Err(refusal)) => Err(EngineError::permanent(refusal)),
            None => {
                let mut words = String::new();
                if let Some(stderr) = child.stderr.take() {
                    // Not UTF-8 is as good as nothing.
                    _ = stderr.take(MAX_WORDS_BYTES).read_to_string(&mut words).await;
                }
                Err(died(child.wait().await.map_err(failed)?, &words))
            }
        }
    }

    /// What the child sends; `None` if it ends without a word.
    async fn listen(child: &mut Child, most: usize) -> io::Result<Option<Result<Vec<i16>, String>>> {
        let Some(stdout) = child.stdout.take() else { return Ok(None) };
        let mut stdout = BufReader::new(stdout);
        let (mut samples, mut payload) = (Vec::new(), Vec::new());
        loop {
            let mut head = [0; 5];
            match stdout.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            let [kind, length @ ..] = head;
            let length = u32::from_le_bytes(length) as usize;
            let too_much = || io::Error::new(io::ErrorKind::InvalidData, "it sends what it should not");
            if length > MAX_FRAME_BYTES {
                return Err(too_much());
            }
            payload.resize(length, 0);
            match stdout.read_exact(&mut payload).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            match kind {
                SAMPLES if samples.len() + length / 2 <= most => {
                    samples.extend(payload.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])));
                }
                DONE => return Ok(Some(Ok(samples))),
                REFUSED => return Ok(Some(Err(String::from_utf8_lossy(&payload).into_owned()))),
                _ => return Err(too_much()),
            }
        }
    }
}

/// What the end of a child says of the file it had.
fn died(status: ExitStatus, words: &str) -> EngineError {
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    match signal {
        Some(Signal::SIGXCPU) => {
            EngineError::permanent("takes too long to decode for its length: the file is damaged, or made to do harm")
        }
        Some(Signal::SIGABRT) if words.contains("memory allocation of") => EngineError::permanent(format!(
            "needs more than {} MiB to be decoded: the file is damaged, or made to do harm",
            MAX_MEMORY_BYTES / 1024 / 1024
        )),
        // The system's, or an operator's.
        Some(Signal::SIGKILL | Signal::SIGTERM | Signal::SIGINT) => {
            EngineError::retryable("the process that decodes was killed from outside")
        }
        Some(signal) => EngineError::permanent(format!("the decoder crashed on the file ({signal})")),
        None if status.code() == Some(101) => EngineError::permanent("the decoder gave up on the file"),
        None => EngineError::operator(format!("the process that decodes did not start ({status})")),
    }
}

/// Decodes the file on the standard input if this process was started for that, as [`Decoder`] does it.
///
/// To be called before anything else, threads above all.
pub fn decode_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    Some(child(arguments.next()))
}

fn child(max_duration: Option<OsString>) -> ExitCode {
    // A panic's words may quote the file.
    std::panic::set_hook(Box::new(|_| {}));
    let max_duration = max_duration.and_then(|nanos| nanos.to_str()?.parse().ok()).map(Duration::from_nanos);
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let (Some(max_duration), Ok(file)) = (max_duration, stdin) else { return ExitCode::from(NO_LIMITS) };
    let Ok(mut budget) = Budget::new() else { return ExitCode::from(NO_LIMITS) };
    let mut stdout = io::stdout().lock();
    let decoded = decode(file, max_duration, &mut |samples| {
        budget.decoded(samples.len())?;
        for samples in samples.chunks(MAX_FRAME_BYTES / 2) {
            let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            send(&mut stdout, SAMPLES, &bytes)?;
        }
        Ok(())
    });
    let told = match decoded {
        Ok(()) => send(&mut stdout, DONE, &[]),
        Err(Failure::File(text)) => send(&mut stdout, REFUSED, &text.as_bytes()[..text.len().min(MAX_FRAME_BYTES)]),
        Err(Failure::Io(error)) => Err(error),
    };
    // If nobody listens any more, nobody asks for the code.
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn send(stdout: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    stdout.write_all(&[kind])?;
    stdout.write_all(&length.to_le_bytes())?;
    stdout.write_all(payload)?;
    stdout.flush()
}

/// The limits of this process.
struct Budget {
    samples: usize,
    seconds: u64,
}

impl Budget {
    /// Sets them, for good but for the time.
    fn new() -> io::Result<Self> {
        // The system takes the child before the worker if the machine's memory ends.
        _ = fs::write("/proc/self/oom_score_adj", "1000");
        let status = fs::read_to_string("/proc/self/status")?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
        let kilobytes: u64 = size.and_then(|size| size.parse().ok()).unwrap_or_default();
        let memory = kilobytes * 1024 + MAX_MEMORY_BYTES;
        let budget = Self { samples: 0, seconds: MAX_CPU.as_secs() + used()? };
        for (resource, limit) in [
            (Resource::RLIMIT_AS, memory),
            (Resource::RLIMIT_CORE, 0),
            // What is open stays so; nothing else can be opened, sockets included.
            (Resource::RLIMIT_NOFILE, 0),
            (Resource::RLIMIT_NPROC, 0),
        ] {
            setrlimit(resource, limit, limit)?;
        }
        budget.set()?;
        Ok(budget)
    }

    /// More time for what was decoded.
    fn decoded(&mut self, samples: usize) -> io::Result<()> {
        self.samples += samples;
        let earned = (self.samples / super::SAMPLE_RATE as usize) as u64 / SECONDS_DECODED_IN_ONE;
        let seconds = MAX_CPU.as_secs() + earned;
        if seconds > self.seconds {
            self.seconds = seconds;
            self.set()?;
        }
        Ok(())
    }

    fn set(&self) -> io::Result<()> {
        let most = MAX_CPU_IN_ALL.as_secs();
        Ok(setrlimit(Resource::RLIMIT_CPU, self.seconds.min(most - 1), most)?)
    }
}

/// Seconds of the processor that are gone.
fn used() -> io::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(u64::try_from(usage.user_time().tv_sec() + usage.system_time().tv_sec()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, process};

    #[test]
    fn a_child_can_open_nothing_and_take_no_more_memory_than_its_limit() {
        let alone = "audio::sandbox::tests::is_limited";
        let program = env::current_exe().unwrap();
        let output = process::Command::new(program).args(["--exact", alone, "--ignored"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
    }

    #[test]
    #[ignore = "run by a_child_can_open_nothing_and_take_no_more_memory_than_its_limit"]
    fn is_limited() {
        let _budget = Budget::new().unwrap();
        assert!(File::open("/proc/self/status").is_err());
        assert!(UdpSocket::bind("127.0.0.1:0").is_err());
        let mut memory = Vec::<u8>::new();
        assert!(memory.try_reserve_exact(usize::try_from(MAX_MEMORY_BYTES).unwrap()).is_err());
        assert!(memory.try_reserve_exact(64 * 1024 * 1024).is_ok());
    }
}
