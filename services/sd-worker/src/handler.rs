//! The work of `jm.sd`: who speaks when in a recording.

use std::{collections::HashMap, sync::Arc};

use jm_engines::{Call, Diarization, DiarizationEngine, audio::AudioFetcher};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Diarize, Diarized, SpeakerTurn, answer};

/// As many as anybody can tell apart.
const MAX_SPEAKERS: u32 = 100;

/// Tells speakers apart. A recording that is too long for the engine is answered without turns and with the reason:
/// a long meeting's transcript without speakers is better than none.
pub(crate) struct Diarizer {
    pub(crate) audio: AudioFetcher,
    pub(crate) engine: Arc<dyn DiarizationEngine>,
}

impl Handler<Diarize> for Diarizer {
    async fn handle(&self, task: Diarize, context: &Context) -> Result<Answers, HandlerError> {
        if let Some(speakers) = task.speakers
            && !(1..=MAX_SPEAKERS).contains(&speakers)
        {
            return Err(HandlerError::permanent(format!("speakers: {speakers}; there have to be 1 to {MAX_SPEAKERS}")));
        }
        let call = Call::from(context);
        let audio = self.audio.fetch(&task.audio, &call).await?;
        let mut reason = None;
        let diarization = match self.engine.diarize(&audio, task.speakers, &call).await {
            Err(error) if error.is_too_long() => {
                tracing::warn!(%error, message_id = context.message_id(), "speakers are not told apart");
                reason = Some(error.to_string());
                Diarization::default()
            }
            result => result?,
        };
        let mut turns = diarization.turns;
        let mut speakers = name_by_appearance(&mut turns);
        if turns.len() > SpeakerTurn::MAX_TURNS || speakers > MAX_SPEAKERS {
            reason = Some(format!("the engine found {} turns of {speakers} speakers, which is noise", turns.len()));
            (turns, speakers) = (Vec::new(), 0);
        }
        let event = Diarized {
            record_id: task.record_id,
            revision: task.revision,
            turns,
            reason,
            speakers,
            duration: audio.duration().as_secs_f64(),
            model: diarization.model,
        };
        answer(context, event.record_id.as_ref(), &event)
    }
}

/// Names the speakers S1, S2, … in the order in which they are first heard, whatever the engine calls them, and says
/// how many there are.
fn name_by_appearance(turns: &mut [SpeakerTurn]) -> u32 {
    turns.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut names: HashMap<String, String> = HashMap::new();
    for turn in turns {
        let next = format!("S{}", names.len() + 1);
        names.entry(turn.speaker.clone()).or_insert(next).clone_into(&mut turn.speaker);
    }
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speakers_are_named_in_the_order_in_which_they_are_heard() {
        let turn = |start: f64, speaker: &str| SpeakerTurn { start, end: start + 1.0, speaker: speaker.into() };
        let mut turns = [turn(5.0, "speaker_0"), turn(0.0, "Z"), turn(2.0, "speaker_0"), turn(3.0, "Z")];
        assert_eq!(name_by_appearance(&mut turns), 2);
        assert_eq!(turns.map(|turn| turn.speaker), ["S1", "S2", "S1", "S2"]);
    }
}
