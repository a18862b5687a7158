//! Transcription by Whisper: its weights as `CTranslate2` keeps them, computed by candle.
//!
//! ```text
//! recording ──> 30 s ──> spectrogram ──> encoder ──> decoder, token by token ──> stretches with times ──> segments
//! ```

mod constraints;
mod ctranslate2;
mod decoder;
mod decoding;
mod encoder;
mod layers;
#[cfg(test)]
mod reference;
mod script;
mod spectrogram;
mod stretches;
mod vocabulary;
mod windows;

use std::{fmt, sync::Arc, time::Duration};

use jm_models::Role;
use jm_mq_core::OptionsError;

use self::{
    ctranslate2::Weights, decoder::Decoder, encoder::Encoder, spectrogram::Spectrogram, vocabulary::Vocabulary,
};
use super::{
    compute::Compute,
    model::{ModelFiles, unusable},
};
use crate::{
    audio::Audio,
    call::Call,
    engine::{EngineFuture, Transcription, TranscriptionEngine, TranscriptionHints},
    options::EngineOptions,
};

/// Writes down speech with Whisper, in 99 languages. Chinese is written in simplified characters, unless the hint's tag
/// asks for traditional ones (`zh-TW`, `zh-HK`, `zh-Hant`).
pub struct EmbeddedTranscription {
    whisper: Arc<Whisper>,
    compute: Compute,
    max_piece: Duration,
}

/// What is the same for all recordings.
struct Whisper {
    name: String,
    spectrogram: Spectrogram,
    encoder: Encoder,
    decoder: Decoder,
    vocabulary: Vocabulary,
}

impl EmbeddedTranscription {
    /// Loads the model: `model.bin`, `tokenizer.json` and `config.json` in its folder. Takes a second or so.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a file that is missing or is not Whisper's.
    pub fn load(options: &EngineOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let files = ModelFiles::find(options, Role::Transcription)?;
        let whisper = Whisper::load(&files).map_err(|error| files.blamed(error))?;
        Ok(Self {
            whisper: Arc::new(whisper),
            compute: Compute::new(options.parallelism, options.timeout),
            max_piece: options.max_piece,
        })
    }
}

impl Whisper {
    fn load(files: &ModelFiles) -> Result<Self, OptionsError> {
        let path = files.file("model.bin");
        let wanted = "Whisper's weights, as CTranslate2 writes them";
        let refused = |error| unusable(&path, wanted, error);
        let mut weights = Weights::open(&path).map_err(refused)?;
        let encoder = Encoder::load(&mut weights).map_err(refused)?;
        let decoder = Decoder::load(&mut weights, encoder.width).map_err(refused)?;
        weights.all_taken().map_err(refused)?;
        let size = decoder.vocabulary_size();
        let vocabulary = Vocabulary::load(&files.file("tokenizer.json"), &files.file("config.json"), size)?;
        let spectrogram = Spectrogram::new(encoder.bands);
        Ok(Self { name: files.name.clone(), spectrogram, encoder, decoder, vocabulary })
    }
}

impl TranscriptionEngine for EmbeddedTranscription {
    fn transcribe<'a>(
        &'a self,
        audio: &'a Audio,
        hints: &'a TranscriptionHints,
        call: &'a Call,
    ) -> EngineFuture<'a, Transcription> {
        let (whisper, audio, hints) = (Arc::clone(&self.whisper), audio.clone(), hints.clone());
        let work = move |stop: &_| windows::transcribe(&whisper, audio.samples(), &hints, stop);
        Box::pin(self.compute.run(call, work))
    }

    fn max_piece(&self) -> Duration {
        self.max_piece
    }
}

impl fmt::Debug for EmbeddedTranscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedTranscription").field("model", &self.whisper.name).finish_non_exhaustive()
    }
}
