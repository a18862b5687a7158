//! The signals by which an orchestrator ends a process.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once with `128 + signal`.
///
/// Made for [`Consumer::run_until`](crate::Consumer::run_until): the first signal starts the drain, and somebody who
/// will not wait for it presses Ctrl-C again. What was not settled by then is redelivered by the broker.
///
/// # Errors
///
/// Where the process may not install signal handlers.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn shutdown_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "draining; a second signal ends the process at once");
        tokio::spawn(async move {
            let code = tokio::select! {
                _ = terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
                _ = interrupt.recv() => 128 + SignalKind::interrupt().as_raw_value(),
            };
            tracing::warn!("second signal: ending without finishing the drain; unsettled messages are redelivered");
            std::process::exit(code);
        });
    })
}
