//! `make up`, `make down` and `jm-demo status`: the supervisor from outside.

use std::{
    env,
    fs::File,
    net::Ipv4Addr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    pipeline::Step,
    progress::Progress,
    state::{Holder, StateFolder, Up},
    supervisor::Told,
};

/// The workers' drains and the broker's end are through by then.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// What is left when its supervisor is killed ends by itself.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Another `up` that is about to be ready.
const START_LIMIT: Duration = Duration::from_mins(5);

/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(50);

/// A worker's health is answered in milliseconds.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// What `up` has found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It is up now.
    Now(Up),
    /// It was up before.
    Already(Up),
}

/// What `down` has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lowered {
    /// Nothing was up.
    Nothing,
    /// It has stopped, in this time.
    Stopped(Duration),
    /// It did not stop, and was killed.
    Killed,
}

/// Starts the supervisor by `arguments` of this program, and returns once everything is up. Dropped before that, all ends.
///
/// # Errors
///
/// When it cannot be started, with what it said.
pub async fn up(state: &StateFolder, arguments: &[String], progress: &mut Progress) -> Result<Raised> {
    let begun = Instant::now();
    while begun.elapsed() < START_LIMIT {
        // A holder that ends without being up was interrupted, or could not start: then it is our turn.
        if state.holder()?.is_some() {
            match wait_for(state).await? {
                Some(up) => return Ok(Raised::Already(up)),
                None => continue,
            }
        }
        if let Some(up) = start_here(state, arguments, progress).await? {
            return Ok(Raised::Now(up));
        }
    }
    bail!("others start it, and none of them is ready after {START_LIMIT:?}; {} says why", state.log().display())
}

/// `None` when somebody else has begun to start it.
async fn start_here(state: &StateFolder, arguments: &[String], progress: &mut Progress) -> Result<Option<Up>> {
    progress.doing("starting RabbitMQ and the five workers");
    // Standard input tells the supervisor that we are still here.
    let mut supervisor = start(state, arguments)?;
    let output = supervisor.stdout.take().context("the supervisor has no output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line).with_context(|| format!("the supervisor said {line:?}"))? {
            Told::Step { what, milliseconds } => {
                progress.step(&Step { what, took: Duration::from_millis(milliseconds) });
            }
            Told::Ready => {
                progress.rest();
                return state.up()?.map(Some).context("it was up and has ended; its log says why");
            }
            Told::Taken => return Ok(None),
            Told::Failed { error } => bail!("{error}"),
        }
    }
    bail!("the supervisor has ended; {} says why", state.log().display())
}

fn start(state: &StateFolder, arguments: &[String]) -> Result<Child> {
    let program = env::current_exe().context("could not find out where this program is")?;
    let log = File::create(state.log()).with_context(|| format!("could not write {}", state.log().display()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    command.spawn().context("could not start the supervisor")
}

/// Somebody else is starting it, or has. `None` when they end before it is up.
async fn wait_for(state: &StateFolder) -> Result<Option<Up>> {
    let begun = Instant::now();
    while begun.elapsed() < START_LIMIT {
        if let Some(up) = state.up()? {
            return Ok(Some(up));
        }
        if state.holder()?.is_none() {
            return Ok(None);
        }
        sleep(LOOK).await;
    }
    bail!("another start is not ready after {START_LIMIT:?}; {} says why", state.log().display())
}

/// Ends what is up, and returns when it is gone. Its data stays.
///
/// # Errors
///
/// When it cannot be signalled, or is not gone even so.
pub async fn down(state: &StateFolder) -> Result<Lowered> {
    let Some(holder) = state.holder()? else { return Ok(Lowered::Nothing) };
    let begun = Instant::now();
    signal(&holder, Signal::SIGTERM)?;
    if gone(state, &holder, STOP_LIMIT).await? {
        return Ok(Lowered::Stopped(begun.elapsed()));
    }
    signal(&holder, Signal::SIGKILL)?;
    if gone(state, &holder, KILL_LIMIT).await? {
        return Ok(Lowered::Killed);
    }
    bail!("process {} does not end; {} says what it is at", holder.pid, state.log().display())
}

/// The lock was held a moment ago by the process that has this number and this start.
fn signal(holder: &Holder, signal: Signal) -> Result<()> {
    if !holder.runs() {
        return Ok(());
    }
    let pid = Pid::from_raw(i32::try_from(holder.pid)?);
    kill(pid, signal).with_context(|| format!("could not send {signal} to the supervisor (process {pid})"))
}

/// Whether it is, before the time is up.
async fn gone(state: &StateFolder, holder: &Holder, limit: Duration) -> Result<bool> {
    let begun = Instant::now();
    while state.holder()?.as_ref() == Some(holder) {
        if begun.elapsed() > limit {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
    Ok(true)
}

/// How one gets at what is up, a line each; with each worker's health.
pub async fn addresses(state: &StateFolder, up: &Up) -> Vec<String> {
    let access = &up.access;
    let line = |name: &str, value: String| format!("{name:<21}{value}");
    let mut lines = vec![
        line("AMQP", access.amqp.clone()),
        line("records", access.database.display().to_string()),
        line("logs", state.path().join("logs").display().to_string()),
    ];
    for (name, port) in &access.workers {
        lines.push(line(name, format!("http://127.0.0.1:{port}/metrics  {}", health(*port).await)));
    }
    lines
}

/// The first line of the answer's body, or why there is none.
async fn health(port: u16) -> String {
    let asked = timeout(HEALTH_LIMIT, async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /health/ready HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    let answer = match asked.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "no answer".to_owned(),
    };
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.lines().next().unwrap_or("no answer").to_owned()
}
