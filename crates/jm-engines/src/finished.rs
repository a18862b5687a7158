//! Parts of a task that are done, kept for its next attempt: no call to an engine is paid for twice.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The results of the latest calls, by what went into them. Bounded in number and in age.
#[derive(Debug)]
pub struct Finished<T> {
    most: usize,
    age: Duration,
    hashers: (RandomState, RandomState),
    /// The oldest first.
    kept: Mutex<VecDeque<(Key, Instant, T)>>,
}

/// What went into a call, as 128 bits of hash under keys of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64, u64);

impl<T: Clone> Finished<T> {
    /// Keeps at most `most` results, each for `age`.
    pub fn new(most: usize, age: Duration) -> Self {
        let hashers = (RandomState::new(), RandomState::new());
        Self { most, age, hashers, kept: Mutex::default() }
    }

    /// The key of what goes into a call.
    pub fn key(&self, input: &impl Hash) -> Key {
        Key(self.hashers.0.hash_one(input), self.hashers.1.hash_one(input))
    }

    /// The result of an earlier call.
    pub fn get(&self, key: Key) -> Option<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, since, result) = kept.iter().find(|(known, ..)| *known == key)?;
        (since.elapsed() <= self.age).then(|| result.clone())
    }

    /// Keeps a result.
    pub fn keep(&self, key: Key, result: T) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, since, _)| *known != key && since.elapsed() <= self.age);
        if kept.len() == self.most {
            kept.pop_front();
        }
        kept.push_back((key, Instant::now(), result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_results_are_kept_by_what_went_into_them() {
        let finished = Finished::new(2, Duration::from_mins(1));
        let keys = ["a", "b", "c"].map(|text| finished.key(&text));
        for (number, key) in keys.into_iter().enumerate() {
            finished.keep(key, number);
            finished.keep(key, number);
        }
        assert_eq!(keys.map(|key| finished.get(key)), [None, Some(1), Some(2)]);
        assert_eq!(finished.get(finished.key(&"d")), None);
    }

    #[test]
    fn an_old_result_is_not_used() {
        let finished = Finished::new(2, Duration::ZERO);
        let key = finished.key(&1);
        finished.keep(key, 1);
        while finished.get(key).is_some() {}
        finished.keep(finished.key(&2), 2);
        assert_eq!(finished.kept.lock().unwrap().len(), 1);
    }
}
