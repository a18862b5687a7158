//! What a campaign came to, for people and for machines: text, JSON, and a picture.

mod picture;
mod text;
mod timeline;

pub use picture::draw;
pub use text::text;
pub use timeline::Timeline;
