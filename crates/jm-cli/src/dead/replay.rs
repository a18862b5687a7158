//! `jm dead replay`: dead letters go back to where they came from.
//!
//! One at a time: get, publish, confirm, ack, and the answer to the next get proves that the ack was worked off. So
//! wherever this ends, every message but the one in hand is in exactly one place, and that one in one or both.

mod arguments;
mod end;
mod plan;
mod tally;

pub(crate) use self::arguments::span;
pub(super) use self::{
    arguments::Arguments,
    end::{End, tell},
    tally::{Names, Tally},
};
use super::{
    canary::{Canary, Fate},
    dead_letter_queue,
    giver::{Given, Giver},
    glance::{Glance, Purpose, Taken, Trouble},
    origin::{self, Target},
    pace::Pace,
    patience::Patience,
    progress::Progress,
    restore,
};
use crate::{exit::Code, failure::Failure, operator::Operator};

/// What cannot be put back, for want of a destination.
pub(super) const NO_ORIGIN: &str = "it does not say where it came from; --to QUEUE names a place";

pub(crate) async fn run(arguments: &Arguments, operator: &Operator<'_>) -> Result<Code, Failure> {
    let queue =
        arguments.queue.as_deref().map(|name| dead_letter_queue(&operator.configuration, name, arguments.exact));
    let queue = match (&arguments.from, queue) {
        (Some(file), queue) => return restore::run(arguments, file, queue.as_deref(), operator).await,
        (None, Some(queue)) => queue,
        (None, None) => return Err(Failure::usage("name a QUEUE, or a file by --from")),
    };
    if arguments.dry_run {
        return plan::run(arguments, &queue, operator).await;
    }
    let _attention = operator.interrupt.attend();
    let mut replay = Replay::new(arguments, operator, queue);
    let end = Box::pin(replay.all()).await;
    replay.progress.end();
    tell(&replay.tally, &replay.queue, end, operator).await
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
    canary: Option<Canary<'a>>,
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
                Some((glance, giver)) => Box::pin(self.pass(glance, giver)).await,
                None => match self.open().await {
                    Ok((glance, giver)) => Box::pin(self.pass(glance, giver)).await,
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

    async fn open(&mut self) -> Result<(Glance<'a>, Giver), Trouble> {
        let glance = Glance::open(self.operator, &self.queue, Purpose::Choose).await?;
        let length = self.tally.replayed + u64::from(glance.ready());
        self.progress.expect(self.arguments.limit.unwrap_or(u64::MAX).min(length));
        Ok((glance, Giver::open(self.operator).await?))
    }

    /// From the front of the queue to the end, or until a connection is lost.
    async fn pass(&mut self, mut glance: Glance<'a>, mut giver: Giver) -> Result<End, Trouble> {
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

    async fn each(&mut self, glance: &mut Glance<'a>, giver: &mut Giver) -> Result<End, Trouble> {
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
    async fn one(&mut self, taken: Taken, glance: &mut Glance<'a>, giver: &mut Giver) -> Result<Option<End>, Trouble> {
        let letter = &taken.letter;
        if origin::is_of_run(letter, &self.names.run) {
            self.tally.came_back += 1;
            glance.hold(taken).await?;
            return Ok(None);
        }
        if !self.arguments.filter.matches(letter) {
            glance.hold(taken).await?;
            return Ok(None);
        }
        let Some(target) = self.arguments.target(letter) else {
            self.tally.leave(NO_ORIGIN.to_owned());
            glance.hold(taken).await?;
            return Ok(None);
        };
        tokio::select! {
            biased;
            _ = self.operator.interrupt.requested() => {
                glance.hold(taken).await?;
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
        glance: &mut Glance<'a>,
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
                glance.hold(taken).await?;
                Ok(false)
            }
        }
    }

    /// One that is put back alone.
    async fn canary(
        &mut self,
        taken: Taken,
        target: &Target,
        glance: &mut Glance<'a>,
        giver: &mut Giver,
    ) -> Result<Option<End>, Trouble> {
        let mut canary = match self.canary.take() {
            Some(canary) => canary,
            None => Canary::open(self.operator, &self.queue).await?,
        };
        if let Some(queue) = self.arguments.to.clone().or_else(|| taken.letter.original_queue())
            && canary.consumers(&queue).await? == Some(0)
        {
            glance.hold(taken).await?;
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
        let fate = fate.map_err(|trouble| match trouble {
            Trouble::Lost(error) => Trouble::Ended(end::canary_lost(identity.as_deref(), &error)),
            ended @ Trouble::Ended(_) => ended,
        })?;
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
