//! The whole pipeline on one machine, with real notes: what `make demo`, `make up`, `make note` and `make down` run.
//!
//! ```text
//! Notes ──> Recordings, Broker ──> record.created ──> the five workers (Pipeline) ──> Store
//!                  │                                                                    │
//!                  └──> Tap, dead letters ──> follow: Journeys ──> Progress, Report <───┘
//! ```
//!
//! Nothing here knows more than a service of the product would: notes are published as its services do, and what
//! becomes of them is read from the exchanges, the dead-letter queues and the database.
//!
//! In reading order: [`notes`] and [`recordings`] (what is sent), [`engines`], [`workers`] and [`pipeline`] (what works on
//! it), [`broker`], [`tap`] and [`dead_letters`] (the view from outside), [`journey`] and [`follow`] (how far each note
//! has come), [`progress`], [`neighbours`] and [`report`] (what people see), [`demo`] (`make demo`), and for `make up`
//! [`state`], [`supervisor`], [`control`] and [`post`].

pub mod broker;
pub mod control;
pub mod dead_letters;
pub mod demo;
pub mod engines;
pub mod follow;
pub mod journey;
pub mod neighbours;
pub mod notes;
pub mod pipeline;
pub mod post;
pub mod progress;
pub mod recordings;
pub mod report;
pub mod state;
pub mod supervisor;
pub mod tap;
pub mod workers;
