//! What is known of a server: learnt from what it refused, and kept for as long as the process runs.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use super::refusal::Part;

/// The parts of requests that a server does not take, and how much it takes at once.
#[derive(Debug, Default)]
pub(crate) struct Profile(Mutex<Known>);

/// A profile at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    refused: BTreeSet<Part>,
    /// The most texts in one request.
    pub(crate) batch: Option<usize>,
    /// Whether the model has thought aloud before an answer, with no tag at the beginning.
    pub(crate) thinks: bool,
}

impl Known {
    /// Whether a request may have this part.
    pub(crate) fn takes(&self, part: Part) -> bool {
        !self.refused.contains(&part)
    }
}

impl Profile {
    pub(crate) fn known(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers that the server refuses this part, and logs it once.
    pub(crate) fn refuses(&self, part: Part, server: &str) {
        let new = self.0.lock().unwrap_or_else(PoisonError::into_inner).refused.insert(part);
        if new {
            tracing::warn!(
                server,
                part = part.name(),
                "the server refuses a part of the request; it is left out from now on (engine.request.body sets others)"
            );
        }
    }

    /// Remembers how many texts the server takes at once, and logs each new limit.
    pub(crate) fn takes_at_once(&self, texts: usize, server: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.batch.is_none_or(|batch| texts < batch) {
            known.batch = Some(texts);
            tracing::warn!(
                server,
                texts,
                "the server takes fewer texts at once than engine.batch_size; set it to this"
            );
        }
    }

    /// Remembers that the model thinks aloud without a first tag.
    pub(crate) fn thinks(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).thinks = true;
    }
}
