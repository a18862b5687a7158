//! Starts with a broken configuration: secrets in wrong keys, wrong types and wrong places.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Subject, ended};
use crate::authority::Authority;
use crate::canary::Canary;
use crate::leaks::LeakSearch;
use crate::worker::WorkerProcessBuilder;

/// The exit code of a configuration that cannot be used.
const CONFIGURATION: i32 = 78;

/// The secrets that are put where they do not belong.
struct Misplaced {
    /// Of any characters.
    any: Canary,
    plain: Canary,
    /// A private key's file as text, and its content without its first and last line.
    pem: String,
    key: String,
}

impl Subject {
    /// Starts the worker with one mistake each, with `--print-config` and without, and searches what it prints.
    pub async fn mistakes(&self) -> Result<LeakSearch> {
        let authority = Authority::new("an authority")?;
        let private = authority.sign("client", "jm-mq")?;
        let pem = fs::read_to_string(authority.path("client.key"))?;
        let key = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let any = Canary::new("a secret in a wrong place");
        let misplaced = Misplaced { any, plain: Canary::plain("a plain secret in a wrong place"), pem, key };
        let known = [misplaced.any.clone(), misplaced.plain.clone(), private];
        let mut search = LeakSearch::of(known.into_iter().chain(self.secrets.iter().cloned()));
        for (name, value) in self.variables(&misplaced) {
            let what = format!("{name} set wrong");
            self.start_wrong(&mut search, &what, || self.configured().env(name, &value)).await?;
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(format!("{}.yaml", self.name()));
        for (number, text) in files(&misplaced).iter().enumerate() {
            fs::write(&file, text)?;
            let what = format!("wrong file {number}");
            self.start_wrong(&mut search, &what, || self.configured().env("JM_CONFIG", folder.path())).await?;
        }
        Ok(search)
    }

    async fn start_wrong(
        &self,
        search: &mut LeakSearch,
        what: &str,
        builder: impl Fn() -> WorkerProcessBuilder,
    ) -> Result<()> {
        for argument in ["--check-config", "--print-config"] {
            let output = ended(builder().arg(argument), CONFIGURATION).await;
            search.output(&format!("{argument}, {what}"), &output.with_context(|| what.to_owned())?);
        }
        Ok(())
    }

    fn variables(&self, misplaced: &Misplaced) -> Vec<(&'static str, String)> {
        let Misplaced { any, plain, pem, key } = misplaced;
        let (any, plain) = (any.value(), plain.value());
        let encoded = utf8_percent_encode(any, NON_ALPHANUMERIC).to_string();
        let address = format!("amqp://u:{any}@host");
        let mut variables = vec![
            ("JM_RABBITMQ__PASWORD", any.to_owned()),
            ("JM_RABBITMQ__PASSWORD__X", any.to_owned()),
            ("JM_RABBITMQ_PASSWORD", any.to_owned()),
            ("JM_RABBITMQ__DSN", address.clone()),
            ("JM_RABBITMQ__HOST", address.clone()),
            ("JM_RABBITMQ__HOST", format!("u:{any}@host")),
            ("JM_RABBITMQ__HOSTS", format!("[{{host: 'amqp://u:{plain}@host'}}]")),
            ("JM_RABBITMQ__PORT", address.clone()),
            ("JM_RABBITMQ__HEARTBEAT", address.clone()),
            ("JM_RABBITMQ", address.clone()),
            ("JM_HTTP__LISTEN", address.clone()),
            ("JM_LOG__LEVEL", address),
            // The secret itself in the place of its file.
            ("JM_RABBITMQ__PASSWORD_FILE", any.to_owned()),
            ("JM_RABBITMQ__PASSWORD_FILE", plain.to_owned()),
            ("JM_RABBITMQ__PASSWORD_FILE", "/no/such/file".to_owned()),
            ("JM_SENTRY__DSN_FILE", format!("https://{plain}@host/1")),
            ("JM_SENTRY__DSN", any.to_owned()),
            ("JM_SENTRY__DSN", format!("https://{plain}@/x")),
            ("JM_RABBITMQ__TLS", format!("{{cert_file: /no/such, key_file: {plain}x{plain}x{plain}}}")),
            ("JM_RABBITMQ__TLS__KEY_FILE", pem.clone()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "cert_file": "/no/such", "key_file": pem }).to_string()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "cert_file": "/no/such", "key_file": key }).to_string()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "cert_file": pem, "key_file": "/no/such" }).to_string()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "ca_file": pem }).to_string()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "key": pem }).to_string()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "key_file": [pem] }).to_string()),
            ("JM_RABBITMQ__TLS", pem.clone()),
            ("JM_RABBITMQ__TLS", key.clone()),
            ("JM_RABBITMQ__TLS", serde_json::json!({ "key_file": STANDARD.encode(pem) }).to_string()),
        ];
        if self.engine.is_some() {
            variables.extend([
                ("JM_ENGINE__API_KEYS", any.to_owned()),
                ("JM_ENGINE__API_KEY", format!("{any}\n")),
                ("JM_ENGINE__API_KEY_FILE", plain.to_owned()),
                ("JM_ENGINE__BASE_URL", format!("ftp://u:{encoded}@host/v1")),
                ("JM_ENGINE__BASE_URL", format!("https://host/v1?key={encoded}")),
                ("JM_ENGINE__BASE_URL", format!("u:{any}@host")),
                ("JM_ENGINE__PROXY", format!("gopher://u:{encoded}@host")),
                ("JM_ENGINE__PROXY", format!("http://u:{encoded}@host:1")),
            ]);
        }
        if self.fetches {
            variables.extend([
                ("JM_AUDIO__S3__SECRET_ACCESS_KEY", any.to_owned()),
                ("JM_AUDIO__S3__ACCESS_KEY_ID", any.to_owned()),
                ("JM_AUDIO__S3__ENDPOINT", format!("http://u:{encoded}@")),
                ("JM_AUDIO__ALLOWED_HOSTS", format!("http://u:{any}@host")),
                ("JM_AUDIO__ALLOWED_HOSTS", format!("u:{plain}@host")),
                ("JM_AUDIO__FOLDER", format!("s3://u:{plain}@host/notes")),
            ]);
        }
        variables
    }
}

/// Texts of a worker's own file.
fn files(misplaced: &Misplaced) -> Vec<String> {
    let (any, plain) = (misplaced.any.value(), misplaced.plain.value());
    vec![
        format!("engine: {{ api_key: \"{any}\" }}"),
        format!("engine: {{ api_key: [\"{any}\"] }}"),
        format!("rabbitmq: {{ password: {{ is: \"{any}\" }} }}"),
        format!("rabbitmq: {{ tls: {{ key_file: {} }} }}", serde_json::Value::from(misplaced.pem.as_str())),
        format!("rabbitmq: {{ tls: [{}] }}", serde_json::Value::from(misplaced.pem.as_str())),
        format!("rabbitmq: {{ password: \"{any}\", \n"),
        format!("rabbitmq: {{ password: {any}\n  host: x }}"),
        format!("rabbitmq: \"{plain}\""),
        format!("rabbit: {{ password: \"{any}\" }}"),
        format!("sentry: {{ dsn: \"{any}\" }}"),
        format!("sentry: {{ dsn: [\"{plain}\"] }}"),
        format!("audio: {{ s3: {{ secret_access_key: \"{any}\", key: 1 }} }}"),
        plain.to_owned(),
        format!("- {plain}"),
    ]
}
