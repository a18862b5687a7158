//! What servers that speak the `OpenAI` API really send and take, which differs from server to server.
//!
//! | part | knows |
//! |---|---|
//! | [`json`] | how an answer's JSON is read although parts of it are odd |
//! | [`refusal`] | what an error means, whoever worded it, and whose fault it is |
//! | [`wait`] | how long a server asks its clients to wait |
//! | [`profile`] | what this server has refused, so that it is asked for that once |
//!
//! The forms are those of public documentation and reports; `testdata/engines` beside this crate's sources has one file for each, with its source.
//! Supporting another form means adding a file there and, where the test then fails, a word here.

pub(crate) mod json;
pub(crate) mod profile;
pub(crate) mod refusal;
pub(crate) mod wait;
