//! From a recording's URL to its samples.

use std::{fmt, time::Duration};

use jm_mq_core::OptionsError;
use jm_tasks::AudioSource;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Audio, AudioOptions, decode::decode, file, resolver, s3::S3, source::Source, web::Web};
use crate::{call::Call, error::EngineError};

/// The limit for decoding: a day of MP3 takes less, on a slow machine.
const DECODE_TIMEOUT: Duration = Duration::from_mins(10);

/// Fetches and decodes recordings.
///
/// A recording's URL comes with a message, from anybody. So it leads nowhere but to public addresses, to allowed hosts,
/// to the configured store and under the configured folder; what comes from there has limits for size and duration,
/// and for the time it takes. The errors name the URL without its query.
///
/// | failure | class |
/// |---|---|
/// | not allowed, no such file, too large, too long, not decodable | permanent |
/// | `https`: 4xx but for 408, 409, 425, 429 | permanent, 401 and 403 too: the URL itself is the right to read |
/// | `https`: 408, 409, 425, 429, 5xx, network, time | retryable |
/// | `s3`: redirects, 4xx but for those below | permanent |
/// | `s3`: 401, 403, 407, a name without a public address that is not the endpoint's; `file`: no permission | operator |
/// | `s3`: 408, 409, 425, 429, 5xx, network, time | retryable |
pub struct AudioFetcher {
    options: AudioOptions,
    web: Web,
    s3: S3,
}

impl AudioFetcher {
    /// Contacts nobody yet.
    ///
    /// # Errors
    ///
    /// An option that is out of range.
    pub fn new(options: AudioOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let web = Web::new(options.allowed_hosts()?, resolver::system(), options.max_bytes)?;
        let s3 = S3::new(options.s3.clone(), resolver::system(), options.max_bytes)?;
        Ok(Self { options, web, s3 })
    }

    /// The recording, decoded. Decoding runs on a thread of its own, and ends there soon after nobody waits any more.
    ///
    /// # Errors
    ///
    /// See the table above.
    pub async fn fetch(&self, source: &AudioSource, call: &Call) -> Result<Audio, EngineError> {
        let source = Source::parse(&source.url)?;
        self.decoded(&source, call).await.map_err(|error| error.of(&source))
    }

    async fn decoded(&self, source: &Source, call: &Call) -> Result<Audio, EngineError> {
        let bytes = within(call, self.options.timeout, self.bytes(source)).await??;
        let stop = call.cancellation.child_token();
        // Cancelled too when this future is dropped.
        let _guard = stop.clone().drop_guard();
        let max_duration = self.options.max_duration;
        let decoding = spawn_blocking({
            let stop: CancellationToken = stop.clone();
            move || decode(bytes, max_duration, &stop)
        });
        match within(call, DECODE_TIMEOUT, decoding).await? {
            Ok(decoded) => decoded,
            // The panic's words are the hook's; a file that makes the decoder panic will do so again.
            Err(_) => Err(EngineError::permanent("the decoder gave up on the file")),
        }
    }

    async fn bytes(&self, source: &Source) -> Result<Vec<u8>, EngineError> {
        let bytes = match source {
            Source::Web(url) => self.web.fetch(url.clone()).await?,
            Source::S3 { bucket, key, .. } => self.s3.fetch(bucket, key).await?,
            Source::File { path, .. } => {
                let (path, folder, max_bytes) = (path.clone(), self.options.folder.clone(), self.options.max_bytes);
                let read = spawn_blocking(move || file::read(&path, folder.as_deref(), max_bytes)).await;
                read.map_err(|_| EngineError::retryable("reading the file was cut short"))??
            }
        };
        if bytes.is_empty() { Err(EngineError::permanent("an empty file")) } else { Ok(bytes) }
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
