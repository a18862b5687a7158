//! Tests that need a process of their own: for its environment, or for its memory.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use jm_engines::{
    EngineOptions, ErrorClass,
    audio::{AudioOptions, S3Options},
};
use jm_testkit::{HttpResponse, HttpServer};
use serde_json::json;
use tokio::process::Command;

use crate::{
    LIMIT, call,
    chat::request,
    decoding::decoded,
    sources::{fetch, wav},
};

const SERVER: &str = "JM_TEST_SERVER";

/// Runs one of the ignored tests below, which has to pass.
pub(crate) async fn passes_alone(test: &str, environment: &[(&str, String)]) -> anyhow::Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--exact", test, "--ignored", "--nocapture"]).kill_on_drop(true);
    for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = tokio::time::timeout(4 * LIMIT, command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    Ok(())
}

#[tokio::test]
async fn no_proxy_of_the_environment_is_asked() -> anyhow::Result<()> {
    let (server, canary) = (HttpServer::start().await?, HttpServer::start().await?);
    server.on("POST", "/v1/chat/completions", |_| {
        HttpResponse::json(200, json!({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}))
    });
    for path in ["/bucket/a.wav", "/a.wav"] {
        server.on("GET", path, |_| {
            HttpResponse::bytes("audio/wav", wav()).header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        });
    }
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut environment: Vec<_> = names.iter().map(|&name| (name, canary.url(""))).collect();
    environment.push((SERVER, server.url("")));
    passes_alone("child::asks_the_server_in_all_ways", &environment).await?;
    assert_eq!((canary.connections(), server.requests().len()), (0, 3));
    Ok(())
}

#[tokio::test]
#[ignore = "run by no_proxy_of_the_environment_is_asked"]
async fn asks_the_server_in_all_ways() -> anyhow::Result<()> {
    let server = env::var(SERVER)?;
    let options = EngineOptions { base_url: server.clone(), model: "m".into(), ..EngineOptions::default() };
    assert_eq!(options.chat()?.complete(&request("a"), &call()).await.unwrap().text, "yes");
    let s3 = S3Options { endpoint: Some(server.clone()), ..S3Options::default() };
    let options = AudioOptions { s3, allowed_hosts: vec!["127.0.0.1".into()], ..AudioOptions::default() };
    for url in ["s3://bucket/a.wav", &format!("{server}/a.wav")] {
        fetch(&options, url).await.unwrap_or_else(|error| panic!("{error}"));
    }
    Ok(())
}

#[tokio::test]
async fn files_full_of_tags_are_refused_soon_and_in_little_memory() -> anyhow::Result<()> {
    passes_alone("child::decodes_files_full_of_tags", &[]).await
}

#[tokio::test]
#[ignore = "run by files_full_of_tags_are_refused_soon_and_in_little_memory"]
async fn decodes_files_full_of_tags() -> anyhow::Result<()> {
    const SIZE: usize = 32 * 1024 * 1024;
    // The file twice, as it is written and as it is read, and what a runtime needs.
    const MOST: usize = 2 * SIZE + 40 * 1024 * 1024;
    let tags = b"ID3\x04\0\0\0\0\0\0".repeat(SIZE / 10);
    let junk = [&b"x"[..], &tags].concat();
    let flac = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tone.flac"))?;
    // Its description, and blocks of as many comments of three letters as they hold.
    let count = 0xFF_0000_u32 / 7;
    let comments = [&[0; 4][..], &count.to_le_bytes(), &b"\x03\0\0\0a=b".repeat(count as usize)].concat();
    let head = [&[4][..], &u32::try_from(comments.len())?.to_be_bytes()[1..]].concat();
    let flac = [&flac[..4], &[flac[4] & 0x7f], &flac[5..42], &head, &comments, &head, &comments].concat();
    drop(comments);
    let before = peak()?;
    for file in [tags, junk, flac] {
        let begin = Instant::now();
        let error = decoded(&file, AudioOptions::default()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(peak()? < before + MOST, "{} bytes more", peak()? - before);
    }
    Ok(())
}

/// The most memory that this process has had so far, in bytes.
fn peak() -> anyhow::Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).unwrap();
    Ok(kilobytes.parse::<usize>()? * 1024)
}
