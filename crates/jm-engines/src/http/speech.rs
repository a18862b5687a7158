//! What the two engines for speech share: the upload, and times that lie within the recording.

use std::time::Duration;

use reqwest::multipart::Part;

use crate::{
    audio::{self, Audio, WAV_HEADER_BYTES},
    error::EngineError,
};

pub(crate) const PATH: &str = "audio/transcriptions";
/// Servers refuse what is shorter, as if the recording were broken.
const SHORTEST: Duration = Duration::from_millis(100);

/// The recording as the file of a form. 16-bit WAV, which every server reads; one below 0.1 s ends with silence.
pub(crate) fn file(audio: &Audio, max_upload_bytes: usize) -> Result<Part, EngineError> {
    let longest = longest(max_upload_bytes);
    if audio.duration() > longest {
        return Err(EngineError::too_long(format!(
            "a recording of {:?} is {} bytes as WAV; `max_upload_bytes` of {max_upload_bytes} allows {longest:?}",
            audio.duration(),
            audio.wav_len(),
        )));
    }
    let wav = audio.padded(SHORTEST).to_wav();
    let length = wav.len() as u64;
    let file = Part::stream_with_length(wav, length).file_name("audio.wav");
    file.mime_str("audio/wav").map_err(|_| EngineError::permanent("audio/wav is no media type"))
}

/// The longest recording whose WAV file is small enough.
pub(crate) fn longest(max_upload_bytes: usize) -> Duration {
    let samples = max_upload_bytes.saturating_sub(WAV_HEADER_BYTES) / 2;
    audio::duration_of(samples)
}

/// A stretch of time within the recording: servers' times may begin before it or end after it.
pub(crate) fn within(start: Option<f64>, end: Option<f64>, duration: f64) -> (f64, f64) {
    let start = start.unwrap_or(0.0).clamp(0.0, duration);
    (start, end.unwrap_or(duration).clamp(start, duration))
}
