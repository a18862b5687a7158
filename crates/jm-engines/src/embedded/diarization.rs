//! Who speaks when: pyannote's segmentation, CAM++ voices, and clustering.
//!
//! ```text
//! windows of 10 s ──> which of three voices is heard when ──> utterances: one voice, without a pause
//!      utterance ──> filter bank ──> voice ──> clustering ──> speakers ──> turns
//! ```
//!
//! The segmentation knows speech, overlaps and changes of voices to a few hundredths of a second, but not who is who
//! beyond its window, and in it two people of whom each speaks after a pause may well be one voice to it. So who speaks
//! an utterance is found out by its voice; the segmentation helps with those that are too short to tell.

mod clustering;
mod fbank;
mod lstm;
mod segmentation;
mod sincnet;
#[cfg(test)]
mod tests;
mod timeline;
mod turns;
mod voice;
mod weights;

use std::sync::Arc;

use jm_models::Role;
use jm_mq_core::OptionsError;
use jm_tasks::SpeakerTurn;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use self::{
    clustering::{Utterance, speakers},
    fbank::FilterBank,
    segmentation::Segmentation,
    timeline::{Timeline, Window, frame_samples, window_samples, window_starts},
    turns::turns,
    voice::VoiceModel,
    weights::Weights,
};
use super::{
    compute::{Compute, Stop},
    model::ModelFiles,
};
use crate::{
    audio::Audio,
    call::Call,
    engine::{Diarization, DiarizationEngine, EngineFuture},
    error::EngineError,
    options::EngineOptions,
};

/// Tells speakers apart in this process.
///
/// Speakers are named `SPEAKER_00`, `SPEAKER_01`, … in the order in which they are first heard; turns of different
/// ones may overlap. Where the number of speakers is given, so many are told apart; if there are not so many voices,
/// fewer. One speaker gets everything. None is a permanent error.
pub struct EmbeddedDiarization {
    compute: Compute,
    models: Arc<Models>,
    name: String,
}

struct Models {
    segmentation: Segmentation,
    bank: FilterBank,
    voices: VoiceModel,
}

impl EmbeddedDiarization {
    /// Loads both models.
    ///
    /// # Errors
    ///
    /// An option that is out of range, a model that is not known or not there, or a file that is not what it should be: with its path.
    pub fn load(options: &EngineOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let files = ModelFiles::find(options, Role::Diarization)?;
        let models = Models::load(&files).map_err(|error| files.blamed(error))?;
        let compute = Compute::new(options.parallelism, options.timeout);
        Ok(Self { compute, models: Arc::new(models), name: files.name })
    }

    async fn diarize(&self, audio: &Audio, speakers: Option<u32>, call: &Call) -> Result<Diarization, EngineError> {
        if speakers == Some(0) {
            return Err(EngineError::permanent("speakers: 0; there has to be 1 at least"));
        }
        let wanted = speakers.map(|speakers| usize::try_from(speakers).unwrap_or(usize::MAX));
        let (models, audio) = (Arc::clone(&self.models), audio.clone());
        let turns = self.compute.run(call, move |stop| models.turns(&audio, wanted, stop)).await?;
        Ok(Diarization { turns, model: self.name.clone() })
    }
}

impl DiarizationEngine for EmbeddedDiarization {
    fn diarize<'a>(&'a self, audio: &'a Audio, speakers: Option<u32>, call: &'a Call) -> EngineFuture<'a, Diarization> {
        Box::pin(self.diarize(audio, speakers, call))
    }
}

impl Models {
    fn load(files: &ModelFiles) -> Result<Self, OptionsError> {
        let segmentation = Weights::open(&files.file("segmentation.pt"), Some("state_dict"))?;
        let voices = Weights::open(&files.file("campplus.pt"), None)?;
        Ok(Self {
            segmentation: Segmentation::load(&segmentation)?,
            bank: FilterBank::new(),
            voices: VoiceModel::load(&voices)?,
        })
    }

    fn turns(&self, audio: &Audio, wanted: Option<usize>, stop: &Stop) -> Result<Vec<SpeakerTurn>, EngineError> {
        let samples = audio.samples();
        let look = |first| {
            stop.check()?;
            Ok(Window { first, voices: self.segmentation.voices(&window_samples(samples, first))? })
        };
        let windows: Result<_, EngineError> = window_starts(samples.len()).into_par_iter().map(look).collect();
        let timeline = Timeline::new(windows?, samples.len());
        let listen = |frames| {
            stop.check()?;
            let voice = self.voices.of(&self.bank.frames(&frame_samples(samples, &frames)))?;
            Ok(Utterance { frames, voice })
        };
        let utterances: Result<Vec<_>, EngineError> = timeline.utterances().into_par_iter().map(listen).collect();
        let utterances = utterances?;
        let speakers = speakers(&utterances, wanted, &timeline, stop)?;
        Ok(turns(&timeline, &utterances, &speakers, audio.duration().as_secs_f64()))
    }
}
