//! Record events, from the message to the tables, on SQLite and on PostgreSQL.

#![allow(
    clippy::doc_markdown,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what it measured"
)]

/// The same test on both databases, with a limit.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::support::limited(super::$name(crate::support::Database::sqlite())).await;
                }
            )+
        }

        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::support::limited(async {
                        super::$name(crate::support::Database::postgres().await).await;
                    })
                    .await;
                }
            )+
        }
    };
}

mod disk_full;
mod events;
mod faults;
mod opening;
mod silence;
mod support;
mod swarm;
mod texts;
