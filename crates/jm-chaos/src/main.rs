//! `jm-chaos`: runs a campaign, and says what held.

mod command_line;

use std::{
    fs::{self, File},
    io::{BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use jm_chaos::{
    campaign,
    checker::{Checker, Verdict},
    child,
    plan::Plan,
    report,
    secrecy::Secrecy,
};

use crate::command_line::{Arguments, Command, Output, Run};

/// The exit codes, beside 0: an invariant was broken, or a secret came out; the campaign could not be run; it was stopped
/// by a signal.
const BROKEN: u8 = 1;
const FAILED: u8 = 2;
const STOPPED: u8 = 130;

fn main() -> ExitCode {
    // A process of a campaign is this program again, with a job.
    let outcome = child::run().unwrap_or_else(|| match Arguments::parse().command {
        Command::Run(run) => run_campaign(&run),
        Command::Plan(seed) => {
            let plan = seed.plan();
            say(format_args!("{plan}\n{}", lines(&plan)))
        }
        Command::Check { folder, output } => check(&folder, &output),
    });
    outcome.unwrap_or_else(|error| {
        complain(format_args!("jm-chaos: {error:#}"));
        ExitCode::from(FAILED)
    })
}

const PLAN: &str = "plan.json";

fn run_campaign(run: &Run) -> Result<ExitCode> {
    let plan = run.seed.plan();
    complain(format_args!("{}", plan.to_string().trim_end()));
    let folder = Folder::make(run.keep.as_deref())?;
    serde_json::to_writer(File::create(folder.path().join(PLAN))?, &plan)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let program = std::env::current_exe()?;
    let options = campaign::Options { rate: run.rate, ..campaign::Options::new(program) };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = campaign::run(&options, &plan, folder.path()) => Some(ended),
            () = signal() => None,
        }
    });
    // Processes and broker end with what the runtime held.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let Some(ended) = ended else {
        complain(format_args!("stopped; replay with: {}", run.seed.replay()));
        return Ok(ExitCode::from(STOPPED));
    };
    let search = match ended {
        Ok(search) => search,
        Err(error) => {
            let kept = folder.keep();
            complain(format_args!("the history so far is in {}; replay with: {}", kept.display(), run.seed.replay()));
            return Err(error);
        }
    };
    let mut verdict = Checker::check(plan.seed, folder.path()).context("could not read the history")?;
    draw(&verdict, &run.output)?;
    verdict.secrecy = Some(Secrecy::look(search, folder.path(), &verdict, &plan, run.output.picture.as_deref())?);
    tell(&verdict, &plan, &run.output)?;
    if verdict.held() {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = folder.keep();
    complain(format_args!("BROKEN. The history is kept in {}; replay with: {}", kept.display(), run.seed.replay()));
    Ok(ExitCode::from(BROKEN))
}

fn check(folder: &Path, output: &Output) -> Result<ExitCode> {
    let file = folder.join(PLAN);
    let plan = File::open(&file).with_context(|| format!("no campaign's folder: {}", file.display()))?;
    let plan: Plan = serde_json::from_reader(BufReader::new(plan)).with_context(|| format!("{}", file.display()))?;
    let verdict = Checker::check(plan.seed, folder).context("could not read the history")?;
    draw(&verdict, output)?;
    tell(&verdict, &plan, output)?;
    Ok(ExitCode::from(if verdict.held() { 0 } else { BROKEN }))
}

fn tell(verdict: &Verdict, plan: &Plan, output: &Output) -> Result<()> {
    if let Some(file) = &output.json {
        let written = serde_json::to_string_pretty(verdict)?;
        fs::write(file, written + "\n").with_context(|| format!("could not write {}", file.display()))?;
    }
    say(format_args!("{}", report::text(verdict, plan))).map(drop)
}

fn draw(verdict: &Verdict, output: &Output) -> Result<()> {
    output.picture.as_ref().map_or(Ok(()), |file| report::draw(verdict, file))
}

fn lines(plan: &Plan) -> String {
    plan.faults.iter().fold(String::new(), |text, fault| text + &fault.to_string() + "\n")
}

fn say(what: std::fmt::Arguments<'_>) -> Result<ExitCode> {
    write!(std::io::stdout(), "{what}").context("could not write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "a command's word to its user")]
fn complain(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}

/// Ctrl-C, or an orchestrator's SIGTERM.
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Where the history goes.
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn make(keep: Option<&Path>) -> Result<Self> {
        match keep {
            Some(folder) => {
                fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
                let used = fs::read_dir(folder)?.next().is_some();
                anyhow::ensure!(!used, "{} is not empty; the history needs a folder of its own", folder.display());
                Ok(Self::Kept(folder.to_owned()))
            }
            None => Ok(Self::Temporary(tempfile::Builder::new().prefix("jm-chaos-").tempdir()?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(folder) => folder.keep(),
            Self::Kept(folder) => folder,
        }
    }
}
