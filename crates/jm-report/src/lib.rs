//! What a record has become, for people: within 80 columns, in any script. The demo and the operator's command print it.
//!
//! [`record`] is a whole record; [`Page`] is what it is made of, for reports that have more to say; [`plain`] is how
//! texts of models and of strangers come onto a terminal.

mod page;
mod plain;
mod record;

pub use page::{Page, TEXT_LINES, seconds, wrapped};
pub use plain::plain;
pub use record::{Fate, Fates, record};
