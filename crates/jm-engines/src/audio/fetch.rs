//! From a recording's URL to its samples.

use std::{fmt, time::Duration};

use jm_mq_core::OptionsError;
use jm_tasks::AudioSource;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    Audio, AudioOptions, file, memory_file::MemoryFile, resolver, s3::S3, sandbox::Decoder, source::Source, web::Web,
};
use crate::{call::Call, error::EngineError};

/// The limit for decoding: a day of MP3 takes less, on a slow machine.
const DECODE_TIMEOUT: Duration = Duration::from_mins(10);
/// Recordings that are decoded at a time: each may take its decoder's memory, and little time.
const MAX_DECODING: usize = 2;

/// Fetches and decodes recordings.
///
/// A recording's URL comes with a message, from anybody. So it leads nowhere but to public addresses, to allowed hosts,
/// to the configured store and under the configured folder; what comes from there has limits for size and duration,
/// and for the time it takes. The errors name the URL without its query.
///
/// | failure | class |
/// |---|---|
/// | not allowed, no such file, too large, too long, not decodable, more than a second of it missing | permanent |
/// | the process that decodes: beyond its memory or time, a crash | permanent |
/// | the process that decodes: killed from outside | retryable; not to be started: operator |
/// | `https`: 4xx but for 408, 409, 425, 429 | permanent, 401 and 403 too: the URL itself is the right to read |
/// | `https`: 408, 409, 425, 429, 5xx, network, time | retryable |
/// | `s3`: redirects, 4xx but for those below | permanent |
/// | `s3`: 401, 403, 407, a name without a public address that is not the endpoint's; `file`: no permission | operator |
/// | `s3`: 408, 409, 425, 429, 5xx, network, time | retryable |
pub struct AudioFetcher {
    options: AudioOptions,
    web: Web,
    s3: S3,
    decoder: Decoder,
    turns: Semaphore,
}

impl AudioFetcher {
    /// Contacts nobody yet. `decoder` is what recordings are decoded by.
    ///
    /// # Errors
    ///
    /// An option that is out of range.
    pub fn new(options: AudioOptions, decoder: Decoder) -> Result<Self, OptionsError> {
        options.validate()?;
        let web = Web::new(options.allowed_hosts()?, resolver::system(), options.max_bytes)?;
        let s3 = S3::new(options.s3.clone(), resolver::system(), options.max_bytes)?;
        Ok(Self { options, web, s3, decoder, turns: Semaphore::new(MAX_DECODING) })
    }

    /// The recording, decoded. Decoding runs in a process of its own, which ends when nobody waits any more.
    ///
    /// # Errors
    ///
    /// See the table above.
    pub async fn fetch(&self, source: &AudioSource, call: &Call) -> Result<Audio, EngineError> {
        let source = Source::parse(&source.url)?;
        self.decoded(&source, call).await.map_err(|error| error.of(&source))
    }

    async fn decoded(&self, source: &Source, call: &Call) -> Result<Audio, EngineError> {
        let file = within(call, self.options.timeout, self.file(source)).await??;
        if file.is_empty() {
            return Err(EngineError::permanent("an empty file"));
        }
        let decoding = async {
            // Never closed.
            let _turn = self.turns.acquire().await;
            self.decoder.decode(file.sealed()?, self.options.max_duration).await
        };
        within(call, DECODE_TIMEOUT, decoding).await?
    }

    async fn file(&self, source: &Source) -> Result<MemoryFile, EngineError> {
        match source {
            Source::Web(url) => self.web.fetch(url.clone()).await,
            Source::S3 { bucket, key, .. } => self.s3.fetch(bucket, key).await,
            Source::File { path, .. } => {
                let (path, folder, max_bytes) = (path.clone(), self.options.folder.clone(), self.options.max_bytes);
                let read = spawn_blocking(move || file::read(&path, folder.as_deref(), max_bytes)).await;
                read.map_err(|_| EngineError::retryable("reading the file was cut short"))?
            }
        }
    }
}

impl fmt::Debug for AudioFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioFetcher").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Waits as long as the limit, the caller's deadline and the caller's interest allow.
async fn within<T>(call: &Call, limit: Duration, work: impl Future<Output = T>) -> Result<T, EngineError> {
    let limit = call.time_left(limit);
    match call.cancellation.run_until_cancelled(tokio::time::timeout(limit, work)).await {
        Some(Ok(done)) => Ok(done),
        Some(Err(_)) => Err(EngineError::retryable(format!("not done within {limit:?}"))),
        None => Err(EngineError::retryable("cancelled")),
    }
}
