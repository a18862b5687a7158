//! Who spoke when: `/audio/transcriptions` with `diarized_json`.

use jm_mq_core::OptionsError;
use jm_tasks::SpeakerTurn;
use serde_json::Value;

use super::{
    client::{Answer, Body, Client, Request},
    dialect::{json, profile::Known, refusal::Part},
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
        let build = |known: &Known| {
            let mut fields =
                vec![("model".into(), self.model.clone()), ("response_format".into(), "diarized_json".into())];
            if known.takes(Part::Chunking) {
                fields.push(("chunking_strategy".into(), "auto".into()));
            }
            Ok(Body::Form(speech::file(audio, self.max_upload_bytes)?, fields))
        };
        let sending = Request { path: PATH, optional: &[Part::Chunking], texts: &[], call };
        let read = |answer: Answer| {
            let answer: Value = self.client.parse(PATH, &answer.body)?;
            if let Some(failure) = self.client.error_inside(&sending, &answer) {
                return Err(failure);
            }
            turns(&answer, audio.duration().as_secs_f64()).map_err(|what| self.client.unusable(PATH, what))
        };
        let turns = self.client.post(&sending, build, read).await?;
        Ok(Diarization { turns, model: self.model.clone() })
    }
}

impl DiarizationEngine for HttpDiarization {
    fn diarize<'a>(&'a self, audio: &'a Audio, speakers: Option<u32>, call: &'a Call) -> EngineFuture<'a, Diarization> {
        Box::pin(self.diarize(audio, speakers, call))
    }
}

/// Segments in order, those of one speaker that follow on each other joined. A segment without a speaker says nothing of who
/// spoke, and is left out; an answer in which none has one is unusable.
fn turns(answer: &Value, duration: f64) -> Result<Vec<SpeakerTurn>, &'static str> {
    if !answer.get("segments").is_some_and(Value::is_array) {
        return Err("an answer without segments");
    }
    let segments = json::list(answer.get("segments"));
    let mut spoken = Vec::with_capacity(segments.len());
    let mut named = segments.is_empty();
    for segment in segments {
        let speaker = json::text(segment.get("speaker")).map(|name| name.trim().to_owned());
        let Some(speaker) = speaker.filter(|name| !name.is_empty()) else { continue };
        named = true;
        let (start, end) = (json::seconds(segment.get("start")), json::seconds(segment.get("end")));
        let (start, end) = speech::within(start, end, duration);
        // What lies outside of the recording was said by nobody.
        if end > start {
            spoken.push(SpeakerTurn { start, end, speaker });
        }
    }
    if !named {
        return Err("segments without speakers");
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
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(segments: &[(f64, f64, &str)]) -> Option<Vec<(f64, f64, String)>> {
        let segment = |&(start, end, name): &(f64, f64, &str)| json!({"start": start, "end": end, "speaker": name});
        let answer = json!({ "segments": segments.iter().map(segment).collect::<Vec<_>>() });
        let turns = turns(&answer, 10.0).ok()?;
        Some(turns.into_iter().map(|turn| (turn.start, turn.end, turn.speaker)).collect())
    }

    #[test]
    fn a_speaker_may_be_a_number_and_segments_without_one_are_left_out() {
        let answer = json!({"segments": [
            {"start": "0", "end": 1, "speaker": 0}, {"start": 1, "end": 2}, {"start": 2, "end": 3, "speaker": null},
            {"start": 3, "end": 4, "speaker": 1}
        ]});
        let names = turns(&answer, 10.0).unwrap().into_iter().map(|turn| (turn.start, turn.speaker));
        assert_eq!(names.collect::<Vec<_>>(), [(0.0, "0".to_owned()), (3.0, "1".to_owned())]);
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
