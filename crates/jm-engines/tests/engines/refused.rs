//! URLs that lead to where no message may send us. A canary listens there; nobody may knock.

use std::{fs, time::Duration};

use jm_engines::{ErrorClass, audio::AudioOptions};
use jm_testkit::{HttpResponse, HttpServer};

use crate::sources::{fails, loopback, wav};

async fn refused(options: &AudioOptions, url: &str) {
    let error = fails(options, url).await;
    assert_eq!(error.class(), ErrorClass::Permanent, "{url}: {error}");
}

#[tokio::test]
async fn no_spelling_of_a_private_address_is_dialled() -> anyhow::Result<()> {
    let (v4, v6) = (HttpServer::start().await?, HttpServer::start_on("[::1]:0".parse()?).await?);
    let none = AudioOptions { timeout: Duration::from_secs(5), ..AudioOptions::default() };
    // Only names are allowed here: what they resolve to is not, as an address.
    let named = AudioOptions { allowed_hosts: vec!["store.internal".into()], ..none.clone() };
    for options in [&none, &named] {
        for scheme in ["https", "http"] {
            for host in [
                "127.0.0.1",
                "127.1",
                "2130706433",
                "0x7f000001",
                "0x7f.1",
                "0177.0.0.1",
                "017700000001",
                "127.0.0.1.",
                "0.0.0.0",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "[::127.0.0.1]",
                "[64:ff9b::127.0.0.1]",
                "[2002:7f00:1::]",
                "localhost",
                "LOCALHOST",
                "①②⑦.0.0.1",
                "%31%32%37.0.0.1",
                "169.254.169.254",
                "[fe80::1]",
                "10.0.0.1",
                "192.168.1.1",
                "172.16.0.1",
                "[fd00::1]",
                "[::]",
            ] {
                refused(options, &format!("{scheme}://{host}:{}/latest/meta-data/", v4.port())).await;
            }
            for host in ["[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "localhost"] {
                refused(options, &format!("{scheme}://{host}:{}/", v6.port())).await;
            }
        }
    }
    assert_eq!((v4.connections(), v6.connections()), (0, 0));

    // The canary works: an allowed host is dialled.
    v4.on("GET", "/", |_| HttpResponse::bytes("audio/wav", wav()));
    crate::sources::fetch(&loopback(), &v4.url("/")).await.unwrap();
    assert_eq!(v4.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn a_redirect_from_an_allowed_host_to_a_refused_one_is_not_followed() -> anyhow::Result<()> {
    let (server, canary) = (HttpServer::start().await?, HttpServer::start_on("[::1]:0".parse()?).await?);
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("a.wav"), wav())?;
    let options = AudioOptions { folder: Some(folder.path().into()), ..loopback() };
    let port = canary.port();
    for target in [
        format!("http://[::1]:{port}/"),
        format!("https://[::1]:{port}/"),
        format!("//[::1]:{port}/"),
        format!("https://localhost:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        "http://169.254.169.254/latest/meta-data/".into(),
        format!("http://user@127.0.0.1:{}/", server.port()),
        format!("file://{}/a.wav", folder.path().display()),
        "s3://bucket/key".into(),
        "data:audio/wav;base64,AAAA".into(),
    ] {
        let to = target.clone();
        server.on("GET", "/a.wav", move |_| HttpResponse::redirect(302, &to));
        refused(&options, &server.url("/a.wav")).await;
    }
    assert_eq!(canary.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn http_and_users_in_urls_are_refused_even_where_they_lead_outside() -> anyhow::Result<()> {
    for url in ["http://example.com/a.wav", "https://user:canary@example.com/a.wav", "ftp://example.com/a.wav"] {
        let error = fails(&AudioOptions::default(), url).await;
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_outside_of_the_folder_is_not_read_however_it_is_named() -> anyhow::Result<()> {
    let outer = tempfile::tempdir()?;
    let folder = outer.path().join("folder");
    fs::create_dir(&folder)?;
    fs::create_dir(outer.path().join("folder-2"))?;
    for name in ["outside.wav", "folder-2/a.wav"] {
        fs::write(outer.path().join(name), wav())?;
    }
    std::os::unix::fs::symlink("../outside.wav", folder.join("link.wav"))?;
    std::os::unix::fs::symlink("..", folder.join("up"))?;
    let options = AudioOptions { folder: Some(folder.clone()), ..AudioOptions::default() };
    let (outer, folder) = (outer.path().display(), folder.display());
    for url in [
        format!("file://{outer}/outside.wav"),
        format!("file://{folder}/../outside.wav"),
        format!("file://{folder}/%2e%2e/outside.wav"),
        format!("file://{folder}/..%2Foutside.wav"),
        format!("file://{folder}/x%2F..%2F..%2Foutside.wav"),
        format!("file://{folder}-2/a.wav"),
        format!("file://{folder}/link.wav"),
        format!("file://{folder}/up/outside.wav"),
        "file:///etc/passwd".into(),
        "file:///proc/self/environ".into(),
    ] {
        let error = fails(&options, &url).await;
        assert_eq!(error.class(), ErrorClass::Permanent, "{url}: {error}");
        assert!(error.to_string().ends_with("outside of `folder`"), "{url}: {error}");
    }
    let error = fails(&AudioOptions::default(), &format!("file://{folder}/link.wav")).await;
    assert!(error.to_string().contains("`folder` is not configured"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_pipe_a_folder_and_a_device_are_no_files_and_do_not_block() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status()?;
    assert!(made.success());
    fs::create_dir(folder.path().join("sub"))?;
    let options = AudioOptions { folder: Some(folder.path().into()), ..AudioOptions::default() };
    for name in ["pipe", "sub", ""] {
        refused(&options, &format!("file://{}/{name}", folder.path().display())).await;
    }
    let devices = AudioOptions { folder: Some("/dev".into()), ..AudioOptions::default() };
    refused(&devices, "file:///dev/zero").await;
    Ok(())
}
