//! Who spoke when: `/audio/transcriptions` with `diarized_json`.

use jm_mq_core::OptionsError;
use jm_tasks::SpeakerTurn;
use serde::Deserialize;

use super::{
    client::{Body, Client},
    speech::{self, PATH},
};
use crate::{
    audio::Audio,
    call::Call,
    engine::{Diarization, DiarizationEngine, EngineFuture},
    error::EngineError,
    options::EngineOptions,
};

/// A pause within one speaker's turn, in seconds: shorter than it takes to hand over to somebody else.
const MAX_PAUSE: f64 = 0.5;

/// A diarization model behind the `OpenAI` API.
///
/// The API has no field for the number of speakers: that hint is not sent. The recording is sent whole, since speakers
/// of two pieces could not be matched; one that is larger than `max_upload_bytes` is a permanent error with
/// [`EngineError::is_too_long`].
pub struct HttpDiarization {
    client: Client,
    model: String,
    max_upload_bytes: usize,
}

impl HttpDiarization {
    /// Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// An option that is out of range.
    pub fn new(options: &EngineOptions) -> Result<Self, OptionsError> {
        Ok(Self {
            client: Client::new(options)?,
            model: options.model.clone(),
            max_upload_bytes: options.max_upload_bytes,
        })
    }

    async fn diarize(&self, audio: &Audio, speakers: Option<u32>, call: &Call) -> Result<Diarization, EngineError> {
        if let Some(speakers) = speakers {
            tracing::debug!(speakers, "the API has no field for the number of speakers");
        }
        let form = speech::form(audio, &self.model, self.max_upload_bytes)?
            .text("response_format", "diarized_json")
            .text("chunking_strategy", "auto");
        let answer: Answer = self.client.post(PATH, Body::Form(form), &[], call).await?;
        let turns = turns(answer.segments, audio.duration().as_secs_f64());
        let turns = turns.ok_or_else(|| self.client.unusable(PATH, "a segment without a speaker"))?;
        Ok(Diarization { turns, model: self.model.clone() })
    }
}

impl DiarizationEngine for HttpDiarization {
    fn diarize<'a>(&'a self, audio: &'a Audio, speakers: Option<u32>, call: &'a Call) -> EngineFuture<'a, Diarization> {
        Box::pin(self.diarize(audio, speakers, call))
    }
}

/// Segments in order, those of one speaker that follow on each other joined; `None` if one has no speaker.
fn turns(segments: Vec<Segment>, duration: f64) -> Option<Vec<SpeakerTurn>> {
    let mut spoken = Vec::with_capacity(segments.len());
    for Segment { start, end, speaker } in segments {
        let speaker = speaker.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())?;
        let (start, end) = speech::within(Some(start), Some(end), duration);
        // What lies outside of the recording was said by nobody.
        if end > start {
            spoken.push(SpeakerTurn { start, end, speaker });
        }
    }
    spoken.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut turns: Vec<SpeakerTurn> = Vec::with_capacity(spoken.len());
    for turn in spoken {
        match turns.last_mut() {
            Some(last) if last.speaker == turn.speaker && turn.start - last.end < MAX_PAUSE => {
                last.end = last.end.max(turn.end);
            }
            _ => turns.push(turn),
        }
    }
    Some(turns)
}

#[derive(Deserialize)]
struct Answer {
    segments: Vec<Segment>,
}

#[derive(Deserialize)]
struct Segment {
    start: f64,
    end: f64,
    #[serde(default)]
    speaker: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(segments: &[(f64, f64, &str)]) -> Option<Vec<(f64, f64, String)>> {
        let segments =
            segments.iter().map(|&(start, end, name)| Segment { start, end, speaker: Some(name.into()) }).collect();
        let turns = turns(segments, 10.0)?;
        Some(turns.into_iter().map(|turn| (turn.start, turn.end, turn.speaker)).collect())
    }

    #[test]
    fn segments_of_one_speaker_are_joined_over_short_pauses() {
        let turns = read(&[(0.0, 1.0, "A"), (1.4, 2.0, "A"), (2.5, 3.0, "A"), (3.0, 4.0, "B"), (4.0, 5.0, "A")]);
        let joined = [(0.0, 2.0, "A"), (2.5, 3.0, "A"), (3.0, 4.0, "B"), (4.0, 5.0, "A")];
        assert_eq!(turns.unwrap(), joined.map(|(start, end, name)| (start, end, name.to_owned())));
    }

    #[test]
    fn turns_are_in_order_within_the_recording_and_each_has_a_speaker() {
        let turns = read(&[(8.0, 12.0, "B"), (-1.0, 2.0, " A "), (11.0, 12.0, "C"), (3.0, 3.0, "C")]).unwrap();
        assert_eq!(turns, [(0.0, 2.0, "A".to_owned()), (8.0, 10.0, "B".to_owned())]);
        assert_eq!(read(&[(0.0, 1.0, " ")]), None);
        assert_eq!(read(&[]), Some(Vec::new()));
    }
}
