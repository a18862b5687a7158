//! `null` where a field has a default: the same as no field at all.
//!
//! Go writes a nil slice, map or pointer as `null`, and so do other languages with a value that was never set. The
//! schemas do not offer it: they say what to send. A field that is an `Option` needs nothing of this. A field that is
//! required stays so, and `null` is none of its values; but for [`Diarized::turns`](crate::Diarized::turns), since "no
//! turns" is where a nil slice is likeliest.

use serde::{Deserialize, Deserializer};

/// For a field whose default is its type's.
pub(crate) fn as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// For a record's first revision.
pub(crate) fn as_first_revision<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(FIRST_REVISION))
}

/// What a record has that was never changed.
pub(crate) const FIRST_REVISION: u64 = 1;
