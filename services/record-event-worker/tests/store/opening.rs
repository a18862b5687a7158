//! The way to an open database, and what can be in it.

use std::{pin::pin, task::Poll};

use record_event_worker::{Connections, DatabaseOptions, Store};

use crate::support::{Database, created, id, text_content};

on_both!(
    replicas_that_start_at_once_all_get_their_schema,
    a_database_is_opened_again_with_what_is_in_it,
    a_database_of_a_newer_version_is_left_alone,
    connections_are_in_use_or_idle_and_gone_once_it_is_closed,
);

async fn replicas_that_start_at_once_all_get_their_schema(database: Database) {
    let opening: Vec<_> = (0..12)
        .map(|_| {
            let options = database.options.clone();
            tokio::spawn(async move { Store::open(&options).await })
        })
        .collect();
    for opened in opening {
        let store = opened.await.unwrap().unwrap();
        assert_eq!(store.record(&id("r")).await.unwrap(), None);
    }
}

async fn a_database_is_opened_again_with_what_is_in_it(database: Database) {
    let worker = database.worker().await;
    worker.takes(&created("r", 1, text_content("t"))).await;
    worker.store.close().await;
    let store = Store::open(&database.options).await.unwrap();
    assert!(store.record(&id("r")).await.unwrap().is_some());
    let tool = Store::open_existing(&database.options).unwrap();
    assert!(tool.record(&id("r")).await.unwrap().is_some());
}

async fn a_database_of_a_newer_version_is_left_alone(database: Database) {
    database.store().await.close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        SELECT 9999, 'newer', success, checksum, 1 FROM _sqlx_migrations WHERE version = 1";
    database.execute(newer).await;
    let error = Store::open(&database.options).await.unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().starts_with("cannot bring the schema of the database"),
        "{error}"
    );
}

async fn connections_are_in_use_or_idle_and_gone_once_it_is_closed(database: Database) {
    let store = database.store().await;
    let max = if database.is_sqlite() { 1 } else { database.options.connections };
    assert_eq!(store.connections(), Some(Connections { in_use: 0, idle: 0, max }));
    let record = id("r");
    let mut reading = pin!(store.record(&record));
    let polled = std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    assert_eq!(store.connections(), Some(Connections { in_use: 1, idle: 0, max }));
    reading.await.unwrap();
    // It goes back in the background.
    while store.connections() != Some(Connections { in_use: 0, idle: 1, max }) {
        tokio::task::yield_now().await;
    }
    store.close().await;
    assert_eq!(store.connections(), None);
}

#[tokio::test]
async fn a_missing_folder_is_an_error_that_names_it_and_a_tool_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("not mounted");
    let url = format!("sqlite://{}/records.db", missing.display());
    let options = DatabaseOptions { url: url.into(), ..DatabaseOptions::default() };
    let error = Store::open(&options).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("there is no folder {} for the database; make it, or change database.url", missing.display())
    );
    assert!(error.is_permanent());

    let url = format!("sqlite://{}/records.db", folder.path().display());
    let options = DatabaseOptions { url: url.into(), ..DatabaseOptions::default() };
    assert!(Store::open_existing(&options).unwrap().record(&id("r")).await.is_err());
    assert!(!folder.path().join("records.db").exists());
}

#[tokio::test]
async fn a_file_whose_name_needs_escaping_is_the_file_that_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a b?#%41:笔.db");
    let escaped = file.to_str().unwrap().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    let options = DatabaseOptions { url: format!("sqlite://{escaped}").into(), ..DatabaseOptions::default() };
    Store::open(&options).await.unwrap();
    assert!(file.is_file());
}

#[tokio::test]
async fn a_refused_password_is_in_no_error() {
    let server = jm_testkit::PostgresServer::shared().await.unwrap();
    let url = format!("postgres://jm:canary@127.0.0.1:{}/postgres", server.port());
    let options = DatabaseOptions { url: url.into(), ..DatabaseOptions::default() };
    let error = jm_mq_core::HandlerError::retryable(Store::open(&options).await.unwrap_err());
    let (shown, debugged) = (error.to_string(), format!("{error:?}"));
    assert!(shown.contains(&format!("cannot open the database 127.0.0.1:{}/postgres", server.port())), "{shown}");
    assert!(shown.contains("password authentication failed"), "{shown}");
    assert!(!shown.contains("canary") && !debugged.contains("canary"), "{debugged}");
}

#[tokio::test]
async fn a_new_sqlite_file_and_what_is_beside_it_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("records.db").display());
    let store = Store::open(&DatabaseOptions { url: url.into(), ..DatabaseOptions::default() }).await.unwrap();
    assert_eq!(store.record(&id("r")).await.unwrap(), None);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    assert!(!files.is_empty());
    for file in files {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
    store.close().await;
}
