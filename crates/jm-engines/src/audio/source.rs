//! Where a recording is, as its URL says.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::{error::EngineError, http::base_url};

/// S3's limit for a key.
const MAX_KEY_BYTES: usize = 1024;

/// A recording's place. Shown without user, password, query and fragment, and encoded as in the URL: decoded it may have
/// line ends and terminals' commands in it.
#[derive(Debug)]
pub(super) enum Source {
    /// `https://…`, or `http://…` to allowed hosts.
    Web(Url),
    /// `s3://bucket/key`.
    S3 {
        /// The bucket's name, which has nothing in it that could change the request's host or path.
        bucket: String,
        /// The object's name, not encoded.
        key: String,
        /// What is shown.
        shown: String,
    },
    /// `file:///path`.
    File {
        /// The path, not encoded.
        path: PathBuf,
        /// What is shown.
        shown: String,
    },
}

impl Source {
    /// Reads a URL; what cannot be one of a recording is a permanent error.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let refuse = |what: &str| EngineError::permanent(format!("audio.url: {what}"));
        // Neither the parser's error nor the text is shown: there may be a password in it.
        let mut url = Url::parse(text).map_err(|_| refuse("not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("a URL with a user or a password"));
        }
        url.set_fragment(None);
        match url.scheme() {
            "http" | "https" => Ok(Self::Web(url)),
            "s3" => {
                if url.query().is_some() || url.port().is_some() {
                    return Err(refuse("not s3://bucket/key"));
                }
                let bucket = url.host_str().filter(|name| is_bucket(name));
                let bucket = bucket.ok_or_else(|| refuse("not the name of a bucket"))?.to_owned();
                let key = percent_decode_str(url.path().trim_start_matches('/')).decode_utf8();
                let key = key.map_err(|_| refuse("a key that is not UTF-8"))?.into_owned();
                if key.is_empty() || key.len() > MAX_KEY_BYTES {
                    return Err(refuse("a key of 1 to 1024 bytes is needed"));
                }
                let shown = format!("s3://{bucket}{}", url.path());
                Ok(Self::S3 { bucket, key, shown })
            }
            "file" => {
                if url.query().is_some() {
                    return Err(refuse("a file has no query"));
                }
                let path = url.to_file_path().map_err(|()| refuse("not file:///path"))?;
                Ok(Self::File { path, shown: format!("file://{}", url.path()) })
            }
            _ => Err(refuse("neither https:// nor s3:// nor file://")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => f.write_str(&base_url::address(url)),
            Self::S3 { shown, .. } | Self::File { shown, .. } => f.write_str(shown),
        }
    }
}

/// S3's own rule for names of buckets. They may become part of the host's name.
pub(super) fn is_bucket(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'-'))
        && [name.bytes().next(), name.bytes().last()].iter().all(|end| end.is_some_and(plain))
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("https://host:8443/a/b.mp3?X-Signature=canary#canary", "https://host:8443/a/b.mp3"),
            ("s3://bucket/a%20b/c.wav", "s3://bucket/a%20b/c.wav"),
            ("file:///a%20b/../c.wav", "file:///c.wav"),
            ("https://host/a%0A%1B[2J", "https://host/a%0A%1B[2J"),
            ("s3://bucket/a%0A%1b[2J/\u{1b}\u{9b}\u{202e}", "s3://bucket/a%0A%1b[2J/%1B%C2%9B%E2%80%AE"),
            ("file:///a%0A%1b[2J/\u{1b}\u{9b}", "file:///a%0A%1b[2J/%1B%C2%9B"),
        ] {
            assert_eq!(Source::parse(url).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_place_of_a_recording_is_permanent_and_not_shown() {
        for url in [
            "",
            "canary",
            "/canary",
            "ftp://h/canary",
            "data:audio/wav;base64,canary",
            "https://canary@h/",
            "https://u:canary@h/",
            "s3://bucket",
            "s3://bucket/",
            "s3://Ab/canary",
            "s3://b@ucket/canary",
            "s3://bucket/k?canary",
            "s3://bu..et/canary",
            "s3://bucket./canary",
            "s3://bucket-/canary",
            "s3://.bucket/canary",
            "s3://buc_ket/canary",
            "s3://buckeT/canary",
            "s3://b%C3%BCcket/canary",
            "s3://bucket:80/canary",
            "s3://bucket/%ff",
            "file://host/canary",
            "gopher://h/canary",
            "javascript:canary",
        ] {
            let error = Source::parse(url).unwrap_err();
            assert_eq!(error.class(), crate::ErrorClass::Permanent);
            assert!(error.to_string().starts_with("audio.url: ") && !error.to_string().contains("canary"), "{error}");
        }
    }
}
