//! Error reports to Sentry: each failed retry and each final failure, as the specification's `ErrorToSentry` has it;
//! and the process's own errors, such as a consumer that a person has to mend.
//!
//! The core tells of failures by `tracing`; a layer turns these events into reports. It only puts them into the
//! transport's bounded queue, on which a thread of Sentry's client works: a slow or dead server costs a handler
//! nothing, and what does not fit is dropped. A report has the failure's text and ids. It has no body: no event has.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use sentry::{
    Client, ClientOptions, Level as Severity,
    protocol::{Event as Report, Exception},
};
use tokio::sync::oneshot;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{config::SentryOptions, escape::escaped_lines, worker::Worker};

/// How long the process waits at its end for reports to leave: it exits within a second.
const FLUSH_LIMIT: Duration = Duration::from_millis(600);

/// Sentry's own client must not report on itself, and lapin prints bodies. What an engine calls the operator's fault is
/// reported as its task's failure.
const NOT_REPORTED: [&str; 5] = ["hyper", "jm_engines", "lapin", "reqwest", "sentry"];

/// Sends reports. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reports(Arc<Client>);

impl Reports {
    /// `None` without a DSN: nothing is reported then, and no thread runs.
    pub(crate) fn new(options: &SentryOptions, worker: &Worker) -> Option<Self> {
        let dsn = options.dsn()?.parse().ok()?;
        let mut client_options = ClientOptions::default();
        client_options.dsn = Some(dsn);
        client_options.release = Some(Cow::Owned(format!("{}@{}", worker.name, worker.version)));
        client_options.environment = Some(Cow::Owned(options.environment.clone()));
        client_options.default_integrations = false;
        client_options.max_breadcrumbs = 0;
        client_options.shutdown_timeout = FLUSH_LIMIT;
        let client = Client::from_config(sentry::apply_defaults(client_options));
        Some(Self(Arc::new(client)))
    }

    /// Waits for the reports under way, for a limited time.
    pub(crate) async fn flush(self) {
        let (done, flushed) = oneshot::channel();
        // Closing joins the transport's thread, which a server that never answers holds for ever. Neither this process
        // nor its runtime waits for a thread of its own.
        let flushing = std::thread::Builder::new().name("jm-reports".into()).spawn(move || {
            self.0.close(Some(FLUSH_LIMIT));
            _ = done.send(());
        });
        if flushing.is_err() || tokio::time::timeout(FLUSH_LIMIT, flushed).await.is_err() {
            tracing::debug!("error reports were left behind");
        }
    }
}

impl<S: Subscriber> Layer<S> for Reports {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let level = *event.metadata().level();
        if level > Level::WARN || NOT_REPORTED.iter().any(|silent| target.starts_with(silent)) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if level == Level::ERROR || fields.is_failed_retry() {
            self.0.capture_event(fields.into_report(level, target), None);
        }
    }
}

/// An event's fields as text.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    /// The first run is no retry: its failure is in the logs, and the specification reports from the second one on.
    fn is_failed_retry(&self) -> bool {
        let attempt = self.0.get("attempt").and_then(|attempt| attempt.parse().ok()).unwrap_or(0);
        attempt > 1_u32 && self.0.contains_key("message_type")
    }

    fn into_report(mut self, level: Level, target: &str) -> Report<'static> {
        let message = self.0.remove("message").unwrap_or_default();
        let error = self.0.remove("error");
        let mut report = Report {
            level: if level == Level::ERROR { Severity::Error } else { Severity::Warning },
            logger: Some(target.to_owned()),
            ..Report::default()
        };
        let kind = self.0.get("kind").cloned().unwrap_or_else(|| "retry".to_owned());
        // What fails in the same way belongs together, whatever ids and numbers are in its text.
        let queue = self.0.get("queue").cloned().unwrap_or_default();
        let message_type = self.0.get("message_type").cloned().unwrap_or_default();
        report.fingerprint =
            vec![message.clone().into(), queue.into(), message_type.into(), kind.clone().into()].into();
        match error {
            Some(text) => {
                report.exception.values.push(Exception { ty: kind, value: Some(text), ..Exception::default() });
            }
            None => report.message = Some(message.clone()),
        }
        report.extra.insert("event".into(), message.into());
        for (name, value) in self.0 {
            match name {
                "message_type" => report.tags.insert("type".into(), value),
                "attempts" => report.tags.insert("attempt".into(), value),
                "queue" | "message_id" | "attempt" | "kind" | "correlation_id" => {
                    report.tags.insert(name.into(), value)
                }
                _ => {
                    report.extra.insert(name.into(), value.into());
                    None
                }
            };
        }
        report
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), escaped_lines(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), escaped_lines(&format!("{value:?}")));
    }
}
