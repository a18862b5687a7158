//! Where recordings come from, and what it means when they do not.

use std::{fs, time::Duration};

use jm_engines::{
    Call, EngineError, ErrorClass,
    audio::{Audio, AudioFetcher, AudioOptions, Decoder, S3Options},
};
use jm_tasks::AudioSource;
use jm_testkit::{HttpResponse, HttpServer};

use crate::{LIMIT, call};

/// Half a second that is a file of 16 kB.
pub(crate) fn wav() -> Vec<u8> {
    Audio::from_samples((0..8000).map(|n| (n % 200) as i16 * 100).collect::<Vec<_>>()).to_wav().to_vec()
}

/// Options by which a test's server may be reached.
pub(crate) fn loopback() -> AudioOptions {
    AudioOptions { allowed_hosts: vec!["127.0.0.1".into()], timeout: LIMIT, ..AudioOptions::default() }
}

/// The process that decodes, as a program of its own: that of the tests is not ours.
pub(crate) fn decoder() -> Decoder {
    Decoder::program(env!("CARGO_BIN_EXE_decode-recording"))
}

pub(crate) async fn fetch(options: &AudioOptions, url: &str) -> Result<Audio, EngineError> {
    let fetcher = AudioFetcher::new(options.clone(), decoder()).unwrap();
    let source = AudioSource { url: url.to_owned() };
    tokio::time::timeout(LIMIT, fetcher.fetch(&source, &call())).await.expect("a limit holds")
}

pub(crate) async fn fails(options: &AudioOptions, url: &str) -> EngineError {
    fetch(options, url).await.unwrap_err()
}

#[tokio::test]
async fn a_recording_is_fetched_from_an_allowed_host_also_through_redirects() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("GET", "/a.wav", |_| HttpResponse::bytes("audio/wav", wav()));
    server.on("GET", "/moved", |_| HttpResponse::redirect(302, "/a.wav?n=1"));
    let audio = fetch(&loopback(), &server.url("/moved")).await.unwrap();
    assert_eq!(audio.duration(), Duration::from_millis(500));
    assert_eq!(audio.to_wav(), wav());

    server.on("GET", "/round", |_| HttpResponse::redirect(307, "/round"));
    let before = server.requests().len();
    let error = fails(&loopback(), &server.url("/round")).await;
    assert_eq!((error.class(), server.requests().len() - before), (ErrorClass::Permanent, 6));
    let nowhere = HttpResponse::status(301);
    server.on("GET", "/nowhere", move |_| nowhere.clone());
    assert_eq!(fails(&loopback(), &server.url("/nowhere")).await.class(), ErrorClass::Permanent);
    Ok(())
}

#[tokio::test]
async fn a_web_servers_status_becomes_its_class_and_the_query_stays_unseen() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for (status, class) in [
        (401, ErrorClass::Permanent),
        (403, ErrorClass::Permanent),
        (404, ErrorClass::Permanent),
        (410, ErrorClass::Permanent),
        (429, ErrorClass::RetryAfter(Duration::from_secs(9))),
        (500, ErrorClass::RetryAfter(Duration::from_secs(9))),
    ] {
        server.on("GET", "/a.wav", move |_| HttpResponse::status(status).header("retry-after", "9"));
        let error = fails(&loopback(), &format!("{}?X-Amz-Signature=canary", server.url("/a.wav"))).await;
        assert_eq!(error.class(), class, "{error}");
        let named = format!("{}: {status} ", server.url("/a.wav"));
        assert!(error.to_string().starts_with(&named) && !error.to_string().contains("canary"), "{error}");
    }
    server.on("GET", "/a.wav", |_| HttpResponse::bytes("audio/wav", wav()).cut_after(100));
    let error = fails(&loopback(), &format!("{}?canary", server.url("/a.wav"))).await;
    assert!(error.class() == ErrorClass::Retryable && !error.to_string().contains("canary"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_fetch_ends_at_once() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("GET", "/a.wav", |_| HttpResponse::never());
    let call = Call::default();
    let (fetcher, token) = (AudioFetcher::new(loopback(), decoder())?, call.cancellation.clone());
    let source = AudioSource { url: server.url("/a.wav") };
    let (outcome, ()) = tokio::join!(tokio::time::timeout(LIMIT, fetcher.fetch(&source, &call)), async {
        server.wait_for_requests(1, LIMIT).await.unwrap();
        token.cancel();
    });
    assert_eq!(outcome?.unwrap_err().class(), ErrorClass::Retryable);
    Ok(())
}

fn s3(server: &HttpServer) -> AudioOptions {
    let s3 = S3Options {
        endpoint: Some(server.url("")),
        access_key_id: Some("AKIDCANARY".into()),
        secret_access_key: Some("canary".into()),
        session_token: Some("token".into()),
        ..S3Options::default()
    };
    // No host is allowed: the store's address is the operator's own word.
    AudioOptions { s3, timeout: LIMIT, ..AudioOptions::default() }
}

#[tokio::test]
async fn an_object_is_fetched_from_the_store_with_a_signature() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let last_modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    server.on("GET", "/bucket/a%20b/%C3%BC.wav", move |_| {
        HttpResponse::bytes("audio/wav", wav()).header("last-modified", last_modified).header("etag", "\"1\"")
    });
    for url in ["s3://bucket/a%20b/%C3%BC.wav", "s3://bucket/a b/ü.wav"] {
        let audio = fetch(&s3(&server), url).await.unwrap();
        assert_eq!(audio.duration(), Duration::from_millis(500));
    }
    let request = &server.requests()[0];
    let signed = request.header("authorization").unwrap();
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDCANARY/"), "{signed}");
    assert!(signed.contains("/us-east-1/s3/aws4_request, SignedHeaders="), "{signed}");
    assert_eq!(request.header("x-amz-security-token"), Some("token"));

    let mut anonymous = s3(&server);
    anonymous.s3.access_key_id = None;
    anonymous.s3.secret_access_key = None;
    fetch(&anonymous, "s3://bucket/a b/ü.wav").await.unwrap();
    assert_eq!(server.requests()[2].header("authorization"), None);
    assert!(server.requests().iter().all(|request| request.path.starts_with("/bucket/")), "no keys were asked for");
    Ok(())
}

#[tokio::test]
async fn a_stores_status_becomes_its_class_without_a_second_try() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let body = "<Error><Code>NoSuchKey</Code><Message>AKIDCANARY canary</Message></Error>";
    let fetcher = AudioFetcher::new(s3(&server), decoder())?;
    let source = AudioSource { url: "s3://bucket/key".into() };
    let wait = ErrorClass::RetryAfter(Duration::from_secs(9));
    for status in 300..=599 {
        let (without, with) = match status {
            401 | 403 | 407 => (ErrorClass::Operator, ErrorClass::Operator),
            408 | 409 | 425 | 429 | 500.. => (ErrorClass::Retryable, wait),
            _ => (ErrorClass::Permanent, ErrorClass::Permanent),
        };
        for (retry_after, class) in [(None, without), (Some("9"), with)] {
            server.on("GET", "/bucket/key", move |_| {
                let answer = HttpResponse::json(status, body.into()).header("content-type", "application/xml");
                retry_after.map_or(answer.clone(), |value| answer.header("retry-after", value))
            });
            let before = server.requests().len();
            let error = tokio::time::timeout(LIMIT, fetcher.fetch(&source, &call())).await?.unwrap_err();
            assert_eq!(error.class(), class, "{status}: {error}");
            let shown = error.to_string();
            assert!(shown.starts_with("s3://bucket/key: ") && shown.contains(&format!("({status}")), "{error}");
            assert!(!shown.to_lowercase().contains("canary"), "{error}");
            assert_eq!(server.requests().len() - before, 1, "{status}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_error_of_the_store_whose_body_never_ends_has_the_class_of_its_status() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("GET", "/bucket/key", |_| HttpResponse::endless("application/xml", "").with_status(403));
    assert_eq!(fails(&s3(&server), "s3://bucket/key").await.class(), ErrorClass::Operator);
    Ok(())
}

#[tokio::test]
async fn a_stores_redirect_is_not_followed_wherever_it_leads() -> anyhow::Result<()> {
    let (server, canary) = (HttpServer::start().await?, HttpServer::start().await?);
    let other = HttpServer::start_on("[::1]:0".parse()?).await?;
    for target in [
        canary.url("/latest/meta-data/"),
        format!("http://localhost:{}/", canary.port()),
        other.url("/"),
        server.url("/bucket/elsewhere"),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let target = target.clone();
            server.on("GET", "/bucket/key", move |_| HttpResponse::redirect(status, &target));
            let error = fails(&s3(&server), "s3://bucket/key").await;
            assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        }
    }
    assert_eq!((canary.connections(), other.connections(), server.requests().len()), (0, 0, 20));
    Ok(())
}

#[tokio::test]
async fn a_store_is_asked_for_allowed_buckets_and_proper_keys_only() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let mut options = s3(&server);
    options.s3.buckets = vec!["mine".into()];
    for url in [
        "s3://yours/key",
        "s3://mine/a//b",
        "s3://mine/..%2Fyours%2Fkey",
        "s3://mine/",
        "s3://Mine/key",
        "s3://mi_ne/key",
    ] {
        assert_eq!(fails(&options, url).await.class(), ErrorClass::Permanent, "{url}");
    }
    assert_eq!(server.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_file_is_read_under_the_folder() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("a b"))?;
    fs::write(folder.path().join("a b/c.wav"), wav())?;
    std::os::unix::fs::symlink("c.wav", folder.path().join("a b/link.wav"))?;
    let options = AudioOptions { folder: Some(folder.path().into()), ..AudioOptions::default() };
    for name in ["a%20b/c.wav", "a b/link.wav", "x/../a b/c.wav"] {
        let audio = fetch(&options, &format!("file://{}/{name}", folder.path().display())).await.unwrap();
        assert_eq!(audio.duration(), Duration::from_millis(500));
    }
    std::os::unix::fs::symlink("two.wav", folder.path().join("one.wav"))?;
    std::os::unix::fs::symlink("one.wav", folder.path().join("two.wav"))?;
    let long = "n".repeat(300);
    for name in ["none.wav", "one.wav", "two.wav/x", "a%00b.wav", "a%20b/c.wav/x", &long] {
        let error = fails(&options, &format!("file://{}/{name}", folder.path().display())).await;
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn files_larger_than_allowed_are_permanent_errors_that_name_the_option() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("GET", "/a.wav", |_| HttpResponse::bytes("audio/wav", wav()));
    server.on("GET", "/bucket/a.wav", |_| {
        HttpResponse::bytes("audio/wav", wav()).header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    });
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("a.wav"), wav())?;
    let mut options = AudioOptions { folder: Some(folder.path().into()), ..s3(&server) };
    options.allowed_hosts = vec!["127.0.0.1".into()];
    let urls = [server.url("/a.wav"), "s3://bucket/a.wav".into(), format!("file://{}/a.wav", folder.path().display())];
    for url in urls {
        options.max_bytes = wav().len();
        fetch(&options, &url).await.unwrap();
        options.max_bytes = wav().len() - 1;
        let error = fails(&options, &url).await;
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        assert!(error.to_string().contains("`max_bytes`"), "{error}");
    }
    Ok(())
}
