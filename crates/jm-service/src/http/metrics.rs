//! The process's Prometheus recorder.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets for everything measured in seconds: from a confirm (a millisecond) to a long transcription.
const SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 150.0, 300.0, 600.0, 1200.0];
/// Histograms keep every value until somebody scrapes or cleans up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Installs the recorder and describes the core's metrics and the process's.
pub(crate) fn install(process: &metrics_process::Collector) -> Result<PrometheusHandle, BuildError> {
    let recorder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("somebody else has installed a metrics recorder");
    }
    jm_mq_core::metrics::describe();
    process.describe();
    metrics::describe_gauge!(BUILD_INFO, metrics::Unit::Count, "What runs, by its labels; always 1");
    metrics::describe_counter!(
        LOG_LINES_DROPPED,
        metrics::Unit::Count,
        "Log lines that were dropped: nobody read standard output, or it could not be written"
    );
    Ok(handle)
}

/// What runs, always 1; labels: worker, version, revision.
const BUILD_INFO: &str = "jm_build_info";
/// Log lines that were dropped: nobody read standard output, or it could not be written.
const LOG_LINES_DROPPED: &str = "jm_log_lines_dropped_total";

/// Tells which version of which worker this is.
pub(crate) fn build_info(worker: &'static str, version: &'static str, revision: &'static str) {
    metrics::gauge!(BUILD_INFO, "worker" => worker, "version" => version, "revision" => revision).set(1.0);
}

/// Takes over the count of the logs' writer.
pub(crate) fn log_lines_dropped(lines: usize) {
    metrics::counter!(LOG_LINES_DROPPED).absolute(u64::try_from(lines).unwrap_or(u64::MAX));
}

/// The series whose value is known: a gauge that cannot be refreshed is NaN, and no value is better than the last one.
pub(crate) fn known(rendered: &str) -> String {
    rendered.split_inclusive('\n').filter(|line| line.starts_with('#') || !line.ends_with(" NaN\n")).collect()
}

/// Keeps memory flat where nobody scrapes.
pub(crate) async fn upkeep(handle: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn a_series_without_a_known_value_is_absent_and_the_others_are_not() {
        let rendered = "# HELP a NaN\n# TYPE a gauge\na{queue=\"q NaN\"} 1\na{queue=\"p\"} NaN\n\nb 0.5\n";
        assert_eq!(known(rendered), "# HELP a NaN\n# TYPE a gauge\na{queue=\"q NaN\"} 1\n\nb 0.5\n");
    }
}
