//! The process that decodes, when it does not do as it should.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use jm_engines::{
    Call, EngineError, ErrorClass,
    audio::{AudioFetcher, AudioOptions, Decoder},
};
use jm_tasks::AudioSource;

use crate::{LIMIT, call, sources::wav};

/// Fetches a recording with a shell script for a decoder.
async fn fetch(folder: &Path, script: &str, call: &Call) -> EngineError {
    let program = folder.join("decoder");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(folder.join("a.wav"), wav()).unwrap();
    let options = AudioOptions { folder: Some(folder.into()), ..AudioOptions::default() };
    let fetcher = AudioFetcher::new(options, Decoder::program(program)).unwrap();
    let source = AudioSource { url: format!("file://{}/a.wav", folder.display()) };
    tokio::time::timeout(LIMIT, fetcher.fetch(&source, call)).await.expect("a limit holds").unwrap_err()
}

#[tokio::test]
async fn a_crash_is_the_files_fault_and_being_killed_or_not_started_is_not() {
    for (script, class, text) in [
        ("kill -SEGV $$", ErrorClass::Permanent, "crashed"),
        ("kill -XCPU $$", ErrorClass::Permanent, "too long to decode"),
        ("echo memory allocation of 9 bytes failed >&2; kill -ABRT $$", ErrorClass::Permanent, "more than 256 MiB"),
        ("exit 101", ErrorClass::Permanent, "gave up"),
        ("kill -KILL $$", ErrorClass::Retryable, "killed from outside"),
        ("exit 64", ErrorClass::Operator, "did not start"),
        ("printf 'x\\0\\0\\0\\0'", ErrorClass::Retryable, "what it should not"),
        ("printf 's\\377\\377\\377\\377'", ErrorClass::Retryable, "what it should not"),
        ("printf 's\\4\\0\\0\\0ab'; kill -SEGV $$", ErrorClass::Permanent, "crashed"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch(folder.path(), script, &call()).await;
        assert_eq!(error.class(), class, "{script}: {error}");
        assert!(error.to_string().contains(text), "{script}: {error}");
    }
}

#[tokio::test]
async fn the_process_that_decodes_ends_with_the_call_and_sees_no_secret_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let call = Call::default();
    let (pid, seen) = (folder.path().join("pid"), folder.path().join("seen"));
    let script = format!(
        "env >{}; echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000",
        seen.display(),
        pid = pid.display()
    );
    let cancelled = async {
        while !pid.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        call.cancellation.cancel();
    };
    let (error, ()) = tokio::join!(fetch(folder.path(), &script, &call), cancelled);
    assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
    let status = format!("/proc/{}/status", fs::read_to_string(&pid).unwrap().trim());
    // It is a zombie until somebody takes note of it, or gone.
    let runs = || fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ"));
    tokio::time::timeout(LIMIT, async {
        while runs() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the process ends");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(!seen.contains("CARGO") && !seen.contains("HOME"), "{seen}");
}
