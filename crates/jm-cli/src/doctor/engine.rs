//! The engines of the AI workers: whether they answer, and have the model. Their list of models is asked for, which costs
//! nothing.

use std::time::Duration;

use futures_util::future::join_all;
use jm_engines::{EngineKind, EngineOptions};
use jm_mq_core::OptionsError;
use jm_service::{Sections, Settings};
use reqwest::{Client, Proxy, StatusCode, redirect::Policy};
use serde::Deserialize;

use super::check::Check;
use crate::{
    configuration::{ConfiguredWorker, fleet, pass_over},
    management::{causes, install_tls_provider},
    operator::Operator,
};

const CHECK: &str = "engine";
/// What a list of models may take.
const LIMIT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;

/// An AI worker's own section, unchecked: what is missing is told of here, and is no mistake of jm's configuration.
struct EngineSettings(EngineOptions);

impl Settings for EngineSettings {
    fn read(sections: &mut Sections) -> Self {
        for section in ["audio", "database", "management", "pipeline"] {
            pass_over(sections, section);
        }
        Self(sections.read("engine", |_| Ok::<_, OptionsError>(())))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Models {
    data: Vec<Model>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Model {
    id: String,
}

pub(super) async fn checks(operator: &Operator<'_>) -> Vec<Check> {
    let with_engine = |worker: &&ConfiguredWorker| worker.worker.name != fleet::RECORD_EVENT_WORKER.name;
    join_all(operator.configuration.workers.iter().filter(with_engine).map(|worker| check(operator, worker))).await
}

async fn check(operator: &Operator<'_>, worker: &ConfiguredWorker) -> Check {
    let name = worker.worker.name;
    let options = match operator.configuration.settings_of::<EngineSettings>(worker.worker) {
        Ok(EngineSettings(options)) => options,
        Err(failure) => return Check::fail(CHECK, failure.to_string(), format!("{name} --check-config")),
    };
    if options.kind == EngineKind::Embedded {
        let text = format!("{name}: embedded, in the worker's own process");
        return Check::unknown(CHECK, text, format!("{name} --check-config, where it runs"));
    }
    if options.base_url.is_empty() {
        let text = format!("{name}: engine.base_url is not configured here");
        return Check::unknown(CHECK, text, "JM_ENGINE__BASE_URL, as the worker has it");
    }
    ask(name, &options)
        .await
        .unwrap_or_else(|error| Check::fail(CHECK, format!("{name}: {error}"), "see engine.base_url and engine.proxy"))
}

async fn ask(name: &str, options: &EngineOptions) -> Result<Check, String> {
    let base = options.address().map_err(|error| error.to_string())?;
    let url = base.join("models").map_err(|error| error.to_string())?;
    install_tls_provider();
    let mut http = Client::builder().no_proxy().redirect(Policy::none()).timeout(LIMIT);
    if let Some(proxy) = options.proxy() {
        http = http.proxy(Proxy::all(proxy).map_err(|_| "engine.proxy is no address".to_owned())?);
    }
    let http = http.build().map_err(|error| causes(&error))?;
    let mut request = http.get(url);
    if let Some(key) = options.api_key.as_ref().map(secrecy::ExposeSecret::expose_secret).filter(|key| !key.is_empty())
    {
        request = request.bearer_auth(key);
    }
    let unreachable = |error: &reqwest::Error| format!("cannot reach {base}: {}", causes(error));
    let mut response = request.send().await.map_err(|error| unreachable(&error))?;
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let text = format!("{name}: {base} refuses the key ({status})");
            return Ok(Check::fail(
                CHECK,
                text,
                "JM_ENGINE__API_KEY, or JM_ENGINE__API_KEY_FILE, as the worker has it",
            ));
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            return Ok(Check::ok(CHECK, format!("{name}: {base} answers; it lists no models")));
        }
        status => {
            let text = format!("{name}: {base} answers {status}");
            return Ok(Check::warn(CHECK, text, "see the server's own log"));
        }
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Ok(Check::ok(CHECK, format!("{name}: {base} answers, with more models than are looked at")));
        }
        bytes.extend_from_slice(&chunk);
    }
    let models: Models = serde_json::from_slice(&bytes).unwrap_or_default();
    if models.data.is_empty() || models.data.iter().any(|model| model.id == options.model) {
        return Ok(Check::ok(CHECK, format!("{name}: {base} answers; model {}", options.model)));
    }
    let known: Vec<&str> = models.data.iter().take(5).map(|model| model.id.as_str()).collect();
    let text = format!("{name}: {base} does not list the model `{}`; it has {}", options.model, known.join(", "));
    Ok(Check::warn(CHECK, text, "JM_ENGINE__MODEL, or fetch the model there"))
}
