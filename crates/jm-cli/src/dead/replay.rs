//! `jm dead replay`: dead letters go back to where they came from.
//!
//! One at a time: get, publish, confirm, ack, and the answer to the next get proves that the ack was worked off. So
//! wherever this ends, every message but the one in hand is in exactly one place, and that one in one or both.

mod end;
mod plan;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use uuid::Uuid;

pub(super) use self::end::{End, tell};
use super::{
    QUORUM,
    canary::{Canary, Fate},
    dead_letter_queue,
    filter::Filter,
    giver::{Given, Giver},
    glance::{Glance, Taken, Trouble},
    letter::Letter,
    origin::{self, Target},
    pace::{Pace, Rate},
    patience::Patience,
    progress::Progress,
    restore,
};
use crate::{exit::Code, failure::Failure, operator::Operator};

const HELP: &str = "\
Each message is published as it was, to the exchange and with the key that it
first had, mandatory; confirmed by the broker; and only then taken from the dead
letters. What reaches no queue stays there. However jm ends, nothing is lost, and
at most the message in hand is there twice, with the same message id. A lost
connection is opened again. What fails once more during the replay is left alone.

A canary is put back alone, and the next message waits for what becomes of it. It
is good when its worker says that it is done; it has failed when it is a dead
letter again. Nothing is known of it while it is tried again, or when a program
works on it that is none of ours: then jm stops, too, unless told otherwise by
--silence-is-success.

Examples:
  jm dead replay jm.asr --dry-run
  jm dead replay jm.asr --canary 3 --rate 20
  jm dead replay jm.llm --kind timeout --since 2h --limit 100
  jm dead replay jm.llm --to jm.llm          straight to the queue: others that
                                             its exchange feeds get nothing
  jm dead replay --from saved.jsonl          what `jm dead drop --save` saved";

/// Put back what failed, to where it came from
#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{QUORUM}"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Arguments {
    /// A worker's queue, its worker's name, or the queue with the dead letters itself
    #[arg(required_unless_present = "from")]
    pub(super) queue: Option<String>,
    /// QUEUE is the queue with the dead letters, whatever it is called
    #[arg(long, requires = "queue")]
    pub(super) exact: bool,
    /// Look although each look counts as a delivery (--help: quorum queues)
    #[arg(long)]
    count_deliveries: bool,
    #[command(flatten)]
    pub(super) filter: Filter,
    /// So many at most, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// So many a second at most
    #[arg(long, value_name = "RATE")]
    pub(super) rate: Option<Rate>,
    /// First so many one by one, each only when the one before is done
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, conflicts_with = "from")]
    canary: u64,
    /// How long to wait for a canary
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = span)]
    canary_wait: Duration,
    /// A canary of which nothing was heard in that time is good
    #[arg(long)]
    silence_is_success: bool,
    /// Straight to this queue, wherever they came from
    #[arg(long, value_name = "QUEUE")]
    pub(super) to: Option<String>,
    /// Only tell what would be put back
    #[arg(long, conflicts_with = "from")]
    dry_run: bool,
    /// Put back what is in this file; FILE.done remembers what was
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Arguments {
    /// Where a letter goes.
    pub(super) fn target(&self, letter: &Letter) -> Option<Target> {
        match &self.to {
            Some(queue) => Some(Target::queue(queue)),
            None => Target::origin(letter),
        }
    }
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span: Option<Duration> = text.parse::<jiff::SignedDuration>().ok().and_then(|span| span.try_into().ok());
    let span = span.filter(|span| (Duration::from_secs(1)..=Duration::from_hours(24)).contains(span));
    span.ok_or_else(|| "a time such as 90s, 5m or 1h, from 1s to 24h".to_owned())
}

/// What cannot be put back, for want of a destination.
pub(super) const NO_ORIGIN: &str = "it does not say where it came from; --to QUEUE names a place";

/// Different reasons that are remembered.
const MAX_REASONS: usize = 20;

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let queue =
        arguments.queue.as_deref().map(|name| dead_letter_queue(&operator.configuration, name, arguments.exact));
    let queue = match (&arguments.from, queue) {
        (Some(file), queue) => return restore::run(arguments, file, queue.as_deref(), operator).await,
        (None, Some(queue)) => queue,
        (None, None) => return Err(Failure::usage("name a QUEUE, or a file by --from")),
    };
    if arguments.dry_run {
        return plan::run(arguments, &queue, arguments.count_deliveries, operator).await;
    }
    let _attention = operator.interrupt.attend();
    let mut replay = Replay::new(arguments, operator, queue);
    let end = replay.all().await;
    replay.progress.end();
    tell(&replay.tally, &replay.queue, end, operator).await
}

/// What has become of the messages.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Published, confirmed, and gone from the dead letters.
    pub(super) replayed: u64,
    /// In hand when a connection was lost.
    pub(super) perhaps_twice: u64,
    /// They were put back by this run and have failed again.
    pub(super) came_back: u64,
    /// They stay where they are, for these reasons.
    pub(super) left: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn leave(&mut self, reason: String) {
        let is_told = self.left.len() < MAX_REASONS || self.left.contains_key(&reason);
        let reason = if is_told { reason } else { "other reasons".to_owned() };
        *self.left.entry(reason).or_default() += 1;
    }
}

/// The names of replays: one for the run, and a number for each message.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) run: String,
    number: u64,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { run: Uuid::now_v7().to_string(), number: 0 }
    }

    pub(super) fn next(&mut self) -> String {
        self.number += 1;
        format!("{}/{}", self.run, self.number)
    }
}

struct Replay<'a> {
    arguments: &'a Arguments,
    operator: &'a Operator<'a>,
    queue: String,
    names: Names,
    tally: Tally,
    /// A message is published or about to be, and it is not known that it is gone from the dead letters.
    in_hand: bool,
    pace: Pace,
    patience: Patience,
    progress: Progress,
    canaries_left: u64,
    canary: Option<Canary>,
}

impl<'a> Replay<'a> {
    fn new(arguments: &'a Arguments, operator: &'a Operator<'a>, queue: String) -> Self {
        Self {
            arguments,
            operator,
            queue,
            names: Names::new(),
            tally: Tally::default(),
            in_hand: false,
            pace: Pace::new(arguments.rate),
            patience: Patience::new(),
            progress: Progress::new(operator.output, "replay", 0),
            canaries_left: arguments.canary,
            canary: None,
        }
    }

    /// Everything, over as many connections as it takes. The first one is not waited for.
    async fn all(&mut self) -> Result<End, Failure> {
        let mut opened = Some(self.open().await?);
        loop {
            let pass = match opened.take() {
                Some((glance, giver)) => self.pass(glance, giver).await,
                None => match self.open().await {
                    Ok((glance, giver)) => self.pass(glance, giver).await,
                    Err(trouble) => Err(trouble),
                },
            };
            let trouble = match pass {
                Ok(end) => return Ok(end),
                Err(trouble) => trouble,
            };
            self.tally.perhaps_twice += u64::from(std::mem::take(&mut self.in_hand));
            self.patience.bear(trouble, self.operator.interrupt, &self.progress).await?;
            if self.operator.interrupt.is_requested() {
                return Ok(End::Interrupted);
            }
        }
    }

    async fn open(&mut self) -> Result<(Glance, Giver), Trouble> {
        let looks = !self.arguments.filter.is_everything() || self.arguments.canary > 0;
        let glance = Glance::open(self.operator, &self.queue, looks, self.arguments.count_deliveries).await?;
        let length = self.tally.replayed + u64::from(glance.ready());
        self.progress.expect(self.arguments.limit.unwrap_or(u64::MAX).min(length));
        Ok((glance, Giver::open(self.operator).await?))
    }

    /// From the front of the queue to the end, or until a connection is lost.
    async fn pass(&mut self, mut glance: Glance, mut giver: Giver) -> Result<End, Trouble> {
        // They were given back with the connection, and are seen again.
        self.tally.left.clear();
        self.tally.came_back = 0;
        let end = self.each(&mut glance, &mut giver).await?;
        // The end of the channel is an answer as well.
        glance.close().await?;
        self.prove();
        giver.close().await;
        if let Some(canary) = self.canary.take() {
            canary.close().await;
        }
        Ok(end)
    }

    async fn each(&mut self, glance: &mut Glance, giver: &mut Giver) -> Result<End, Trouble> {
        let limit = self.arguments.limit.unwrap_or(u64::MAX);
        loop {
            if self.operator.interrupt.is_requested() {
                return Ok(End::Interrupted);
            }
            if self.tally.replayed + u64::from(self.in_hand) >= limit {
                return Ok(End::Done);
            }
            let next = glance.next().await;
            if !matches!(next, Err(Trouble::Lost(_))) {
                self.prove();
            }
            let Some(taken) = next? else { return Ok(End::Done) };
            let end = self.one(taken, glance, giver).await?;
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// The broker has answered: what was acked before is gone from the dead letters.
    fn prove(&mut self) {
        if std::mem::take(&mut self.in_hand) {
            self.tally.replayed += 1;
            self.patience.renew();
            self.progress.reached(self.tally.replayed);
        }
    }

    /// One dead letter; an end, if it is the last for some reason.
    async fn one(&mut self, taken: Taken, glance: &mut Glance, giver: &mut Giver) -> Result<Option<End>, Trouble> {
        let letter = &taken.letter;
        if origin::is_of_run(letter, &self.names.run) {
            self.tally.came_back += 1;
            glance.hold(taken);
            return Ok(None);
        }
        if !self.arguments.filter.matches(letter) {
            glance.hold(taken);
            return Ok(None);
        }
        let Some(target) = self.arguments.target(letter) else {
            self.tally.leave(NO_ORIGIN.to_owned());
            glance.hold(taken);
            return Ok(None);
        };
        tokio::select! {
            biased;
            _ = self.operator.interrupt.requested() => {
                glance.hold(taken);
                return Ok(Some(End::Interrupted));
            }
            () = self.pace.wait() => {}
        }
        if self.canaries_left > 0 {
            return self.canary(taken, &target, glance, giver).await;
        }
        let properties = origin::properties(letter, &self.names.next(), None);
        self.put_back(taken, &target, properties, glance, giver).await?;
        Ok(None)
    }

    /// Publishes, waits for the confirm, acks. `false` if the message stays where it is.
    async fn put_back(
        &mut self,
        taken: Taken,
        target: &Target,
        properties: jm_mq_core::BasicProperties,
        glance: &mut Glance,
        giver: &mut Giver,
    ) -> Result<bool, Trouble> {
        self.in_hand = true;
        match giver.give(target, properties, &taken.letter.body).await? {
            Given::Confirmed => {
                glance.ack(&taken).await?;
                Ok(true)
            }
            Given::Refused(reason) => {
                self.in_hand = false;
                self.tally.leave(reason);
                glance.hold(taken);
                Ok(false)
            }
        }
    }

    /// One that is put back alone.
    async fn canary(
        &mut self,
        taken: Taken,
        target: &Target,
        glance: &mut Glance,
        giver: &mut Giver,
    ) -> Result<Option<End>, Trouble> {
        let mut canary = match self.canary.take() {
            Some(canary) => canary,
            None => Canary::open(self.operator, &self.queue).await?,
        };
        if let Some(queue) = self.arguments.to.clone().or_else(|| taken.letter.original_queue())
            && canary.consumers(&queue).await? == Some(0)
        {
            glance.hold(taken);
            return Ok(Some(End::NobodyConsumes(queue)));
        }
        let name = self.names.next();
        let before = canary.dead_letters().await?;
        let properties = origin::properties(&taken.letter, &name, Some(canary.outcome_queue()));
        let identity = taken.letter.message_id().map(ToOwned::to_owned);
        if !self.put_back(taken, target, properties, glance, giver).await? {
            return Ok(Some(End::CanaryRefused));
        }
        let fate = tokio::select! {
            biased;
            _ = self.operator.interrupt.requested() => return Ok(Some(End::Interrupted)),
            fate = canary.fate(&name, before, self.arguments.canary_wait) => fate,
        };
        // What has become of it will never be known now.
        let fate = fate.map_err(|error| Trouble::Ended(end::canary_lost(identity.as_deref(), &error)))?;
        let end = match fate {
            Fate::Back(letter) => Some(End::CanaryBack(letter)),
            Fate::Unknown if !self.arguments.silence_is_success => {
                Some(End::CanaryUnknown { id: identity, after: self.arguments.canary_wait })
            }
            Fate::Done | Fate::Unknown => {
                self.canaries_left -= 1;
                None
            }
        };
        if self.canaries_left > 0 && end.is_none() {
            self.canary = Some(canary);
        } else {
            canary.close().await;
        }
        Ok(end)
    }
}
