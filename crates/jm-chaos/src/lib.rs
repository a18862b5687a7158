//! A seeded fault campaign against the core, with a recorder of all that happens and a checker of what must hold.
//!
//! Publishers and workers are processes of their own that use `jm-mq-core` as the services do. Faults are drawn from a
//! seed before anything starts. What happens is recorded by witnesses outside the core: a tap that reads the AMQP
//! frames between each process and the broker, the handlers themselves, and the campaign. The checker then reads the
//! history and says which of the eleven invariants held.
//!
//! In reading order: [`message`] (what each message is called and asks for), [`cast`] (who takes part), [`plan`] (what
//! will be done to whom), `child` (the processes), `tap` and [`history`] (the record), `campaign` (the course of it),
//! [`checker`] (the invariants), [`secrecy`] (no secret in any output), [`report`].

pub mod campaign;
pub mod cast;
pub mod checker;
pub mod child;
mod clock;
pub mod history;
pub mod message;
pub mod plan;
pub mod report;
mod required;
pub mod secrecy;
mod tap;
