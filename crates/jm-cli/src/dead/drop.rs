//! `jm dead drop`: dead letters are thrown away, after a copy perhaps.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{
    Choice, QUORUM,
    filter::Filter,
    glance::{Glance, Purpose, Taken, Trouble},
    patience::Patience,
    progress::Progress,
    question::{self, Reply},
    saved::SaveFile,
};
use crate::{
    exit::Code,
    failure::Failure,
    operator::Operator,
    output::{GOOD, NOTICE, styled},
};

const HELP: &str = "\
What is saved is on the disk before it is gone from the queue. The file is new,
and readable for its owner only: it has what users wrote and said. An end in the
middle loses nothing; up to 64 messages may then be in the file and still in the
queue.

Examples:
  jm dead drop jm.asr --kind undecodable
  jm dead drop jm.llm --until 30days --yes --save llm.jsonl
  jm dead replay --from llm.jsonl                     takes them back";

/// Throw away what failed, and save it first if you like
#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{QUORUM}"))]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// So many at most, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Save them to this new file first, a line of JSON each
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// How many are written to the disk at once.
const BATCH: usize = 64;
/// And how many bytes of them, roughly.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let queue = arguments.choice.queue(&operator.configuration);
    if !arguments.yes && !question::can_be_asked() {
        return Err(Failure::usage("there is nobody to ask whether to drop them; --yes says so"));
    }
    let count = count(arguments, &queue, operator).await?;
    if count == 0 {
        operator.output.note(format_args!("there are none in {queue}"));
    }
    if count > 0 && !arguments.yes {
        match question::ask(&question(arguments, count, &queue).into(), operator).await {
            Reply::Yes => {}
            Reply::No => return Err(Failure::new(Code::Found, "nothing was dropped")),
            Reply::Interrupted(code) => return Err(Failure::interrupted(code)),
        }
    }
    let file = match &arguments.save {
        Some(path) => Some(SaveFile::create(path).map_err(|error| {
            Failure::new(Code::Io, format_args!("{}: {error}; --save takes the name of a new file", path.display()))
        })?),
        None => None,
    };
    let _attention = operator.interrupt.attend();
    let progress = Progress::new(operator.output, "drop", count);
    let mut dropping = Dropping {
        arguments,
        operator,
        queue,
        // Nobody was asked about more.
        limit: count,
        file,
        dropped: 0,
        perhaps: 0,
        patience: Patience::new(),
        progress,
    };
    let end = dropping.all().await;
    dropping.progress.end();
    tell(&dropping, end).await
}

/// How many there are to drop.
async fn count(arguments: &Arguments, queue: &str, operator: &Operator<'_>) -> Result<u64, Failure> {
    let limit = arguments.limit.unwrap_or(u64::MAX);
    let filter = &arguments.choice.filter;
    let mut glance = Glance::open(operator, queue, purpose(filter)).await?;
    let mut count = 0;
    if filter.is_everything() {
        count = limit.min(glance.ready().into());
    } else {
        while count < limit
            && let Some(taken) = glance.next().await?
        {
            count += u64::from(filter.matches(&taken.letter));
            glance.hold(taken).await?;
        }
    }
    glance.close().await?;
    Ok(count)
}

/// Of everything nothing goes back.
fn purpose(filter: &Filter) -> Purpose {
    if filter.is_everything() { Purpose::TakeAll } else { Purpose::Choose }
}

fn question(arguments: &Arguments, count: u64, queue: &str) -> String {
    let what = if count == 1 { "1 dead letter".to_owned() } else { format!("{count} dead letters") };
    match &arguments.save {
        Some(path) => format!("Drop {what} of {queue}, saved to {}? [y/N] ", path.display()),
        None => format!("Drop {what} of {queue} for good? [y/N] "),
    }
}

struct Dropping<'a> {
    arguments: &'a Arguments,
    operator: &'a Operator<'a>,
    queue: String,
    limit: u64,
    file: Option<SaveFile>,
    dropped: u64,
    /// Acked, when the connection was lost: they are gone, or come again.
    perhaps: u64,
    patience: Patience,
    progress: Progress,
}

/// Whether it was ended by a signal.
type Interrupted = bool;

impl Dropping<'_> {
    async fn all(&mut self) -> Result<Interrupted, Failure> {
        loop {
            let trouble = match self.pass().await {
                Ok(interrupted) => return Ok(interrupted),
                Err(trouble) => trouble,
            };
            self.patience.bear(trouble, self.operator.interrupt, &self.progress).await?;
            if self.operator.interrupt.is_requested() {
                return Ok(true);
            }
        }
    }

    async fn pass(&mut self) -> Result<Interrupted, Trouble> {
        let filter = &self.arguments.choice.filter;
        let mut glance = Glance::open(self.operator, &self.queue, purpose(filter)).await?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let interrupted = loop {
            if self.operator.interrupt.is_requested() {
                break true;
            }
            if self.dropped + batch.len() as u64 >= self.limit {
                break false;
            }
            let Some(taken) = glance.next().await? else { break false };
            if !filter.matches(&taken.letter) {
                glance.hold(taken).await?;
                continue;
            }
            bytes += taken.letter.body.len();
            // Should jm be killed, this one might be dropped by the broker: it is not kept waiting for others.
            let is_urgent = !glance.may_return(&taken);
            batch.push(taken);
            if is_urgent || batch.len() == BATCH || bytes > BATCH_BYTES {
                self.drop(&mut glance, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        };
        self.drop(&mut glance, batch).await?;
        let dropped = glance.close().await;
        if dropped.is_err() {
            self.perhaps += 1;
        }
        dropped?;
        Ok(interrupted)
    }

    /// Saves them, and then acks them.
    async fn drop(&mut self, glance: &mut Glance<'_>, batch: Vec<Taken>) -> Result<(), Trouble> {
        if let Some(file) = &mut self.file
            && !batch.is_empty()
        {
            let saved = tokio::task::block_in_place(|| file.save(&self.queue, batch.iter().map(|taken| &taken.letter)));
            if let Err(error) = saved {
                for taken in batch {
                    glance.hold(taken).await?;
                }
                let text = format_args!("{error} while saving; what was not saved is still in {}", self.queue);
                return Err(Trouble::Ended(Failure::new(Code::Io, text)));
            }
        }
        for taken in &batch {
            if let Err(trouble) = glance.ack(taken).await {
                self.perhaps += batch.len() as u64;
                return Err(trouble);
            }
        }
        self.dropped += batch.len() as u64;
        self.patience.renew();
        self.progress.reached(self.dropped);
        Ok(())
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    queue: &'a str,
    dropped: u64,
    saved_to: Option<&'a PathBuf>,
    interrupted: bool,
}

async fn tell(dropping: &Dropping<'_>, end: Result<Interrupted, Failure>) -> Result<Code, Failure> {
    let Dropping { operator, queue, dropped, perhaps, arguments, .. } = dropping;
    let (dropped, saved_to, output) = (*dropped, arguments.save.as_ref(), operator.output);
    if output.is_json() {
        output.json(&Answer { queue, dropped, saved_to, interrupted: *end.as_ref().unwrap_or(&false) })?;
    } else {
        let saved = saved_to.map(|path| format!(", saved to {}", path.display())).unwrap_or_default();
        output.line(styled(GOOD, format_args!("{dropped} dropped from {queue}{saved}")));
        if *perhaps > 0 {
            let words = "a connection was lost in the middle: some may be in the file twice";
            output.line(styled(NOTICE, words));
        }
    }
    if end? { Ok(operator.interrupt.requested().await) } else { Ok(Code::Ok) }
}
