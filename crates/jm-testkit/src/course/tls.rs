//! TLS that fails: at the broker, and in the files of a worker's own certificate.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{LIMIT, Subject, ended};
use crate::authority::Authority;
use crate::canary::Canary;
use crate::leaks::LeakSearch;
use crate::node::RabbitNode;
use crate::vhost::Vhost;
use crate::worker::WorkerProcessBuilder;

/// The exit code of a configuration that cannot be used.
const CONFIGURATION: i32 = 78;

/// The files that a worker's right configuration names, and those of others.
struct Files {
    ours: Authority,
    other: Authority,
    /// A secret that stands in broken files.
    planted: Canary,
}

impl Subject {
    /// Starts the worker against a broker that asks for a certificate, with each of the mistakes one can make, and
    /// searches for the password and for the private keys. The broker's own log is searched as well.
    pub async fn tls_failures(&self) -> Result<LeakSearch> {
        let files = Files {
            ours: Authority::new("our authority")?,
            other: Authority::new("another authority")?,
            planted: Canary::plain("what stands in a broken key file"),
        };
        let (server, client) = (files.ours.sign("server", "localhost")?, files.ours.sign("client", "jm-mq")?);
        let intruder = files.other.sign("client", "intruder")?;
        // What stands before a key in its file is nobody's business either.
        let path = files.ours.path("client.key");
        let comment = Canary::plain("a comment in the key's file");
        fs::write(&path, format!("{}\n{}", comment.value(), fs::read_to_string(&path)?))?;

        let node = RabbitNode::builder().tls(files.ours.files_of("server")).start().await?;
        let password = Canary::new("the broker's password");
        let vhost = node.vhost_named("tls", "tls user", password.value()).await?;
        let mut search = LeakSearch::of([password, server, client, intruder, comment, files.planted.clone()]);
        self.handshakes(&mut search, &vhost, &files).await?;
        self.unusable_files(&mut search, &vhost, &files).await?;
        search.text("the broker's log", node.log()?);
        Ok(search)
    }

    /// Handshakes that come to an end one way or the other.
    async fn handshakes(&self, search: &mut LeakSearch, vhost: &Vhost, files: &Files) -> Result<()> {
        let right = files.right();
        for (what, changes, said) in [
            ("with TLS", json!({}), None),
            ("with another authority", json!({ "ca_file": files.other.path("ca.pem") }), Some("UnknownIssuer")),
            ("with another server's name", json!({ "server_name": "rabbit.example" }), Some("TLS with localhost")),
            ("without a certificate", json!({ "cert_file": null, "key_file": null }), Some("retry_in")),
            ("with another's certificate", files.of_intruder(), Some("retry_in")),
        ] {
            let builder = self.with_tls(vhost, &changed(&right, &changes)).env("JM_LOG__LEVEL", "trace");
            let worker = builder.start().await?;
            match said {
                None => worker.wait_ready(LIMIT).await,
                Some(said) => worker.wait_for_log(said, LIMIT).await.map(drop),
            }
            .with_context(|| what.to_owned())?;
            search.end(&format!("the worker {what}"), worker, LIMIT).await?;
        }
        Ok(())
    }

    /// Files that cannot be used, which ends the start.
    async fn unusable_files(&self, search: &mut LeakSearch, vhost: &Vhost, files: &Files) -> Result<()> {
        let right = files.right();
        let (cert, key) = (files.ours.path("client.pem"), files.ours.path("client.key"));
        let text = fs::read_to_string(&key)?;
        let begin = "-----BEGIN PRIVATE KEY-----";
        let planted = files.planted.value();
        let broken = [
            planted.to_owned(),
            format!("{begin}\n{planted}\n"),
            format!("{begin}\n{planted}%\n-----END PRIVATE KEY-----\n"),
            format!("{begin}\n{planted}\n-----END PRIVATE KEY-----\n"),
            format!("-----BEGIN {planted}-----\nAAAA\n-----END {planted}-----\n"),
            text.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            text.replace("-----END PRIVATE KEY-----", ""),
            text.lines().rev().collect::<Vec<_>>().join("\n"),
        ];
        let folder = tempfile::tempdir()?;
        let mut mistakes = vec![
            json!({ "key_file": "/no/such/client.key" }),
            json!({ "key_file": folder.path() }),
            json!({ "key_file": files.ours.path("server.key") }),
            json!({ "key_file": cert, "cert_file": key }),
            json!({ "key_file": text }),
            json!({ "key_file": cert }),
            json!({ "ca_file": key }),
            json!({ "cert_file": null }),
        ];
        for (number, text) in broken.iter().enumerate() {
            let path = folder.path().join(format!("broken-{number}.key"));
            fs::write(&path, text)?;
            mistakes.extend([json!({ "key_file": path }), json!({ "cert_file": path }), json!({ "ca_file": path })]);
        }
        for (number, mistake) in mistakes.into_iter().enumerate() {
            let what = format!("a start with unusable files, the {number}th");
            let output = ended(self.with_tls(vhost, &changed(&right, &mistake)), CONFIGURATION).await;
            search.output(&what, &output.with_context(|| mistake.to_string())?);
        }
        Ok(())
    }

    fn with_tls(&self, vhost: &Vhost, tls: &Value) -> WorkerProcessBuilder {
        let port = vhost.tls_port.unwrap_or_default().to_string();
        let builder = self
            .configured()
            .vhost(vhost)
            .env("JM_RABBITMQ__HOST", "localhost")
            .env("JM_RABBITMQ__PORT", port)
            .env("JM_LOG__FORMAT", "text")
            .env("JM_LOG__LEVEL", "trace");
        let given = tls.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)));
        given.fold(builder, |builder, (name, value)| {
            builder.env(format!("JM_RABBITMQ__TLS__{}", name.to_uppercase()), value)
        })
    }
}

impl Files {
    fn right(&self) -> Value {
        let ours = |file: &str| self.ours.path(file);
        json!({ "ca_file": ours("ca.pem"), "cert_file": ours("client.pem"), "key_file": ours("client.key") })
    }

    fn of_intruder(&self) -> Value {
        json!({ "cert_file": self.other.path("client.pem"), "key_file": self.other.path("client.key") })
    }
}

/// The same files but for some; null leaves one out.
fn changed(right: &Value, changes: &Value) -> Value {
    let mut files = right.clone();
    for (name, value) in changes.as_object().into_iter().flatten() {
        files[name] = value.clone();
    }
    files
}
