//! The signals by which an orchestrator ends a process.

use std::{io, process, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tokio::sync::oneshot;

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once with `128 + signal`.
///
/// Made for [`Consumer::run_until`](crate::Consumer::run_until): the first signal starts the drain, and an operator who
/// does not wait for it presses Ctrl-C again. What was not settled by then is redelivered by the broker.
///
/// Signals count from this call on, which needs no runtime: make it the first of `main`. A container's only process is
/// process 1, and the kernel drops a signal to process 1 that no handler is installed for: an earlier SIGTERM is lost,
/// and the orchestrator waits for its whole grace period.
///
/// # Errors
///
/// Where the process may not install signal handlers or start a thread.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (first, received) = oneshot::channel();
    // A thread of its own, so that the second signal ends a process whose runtime is stuck.
    thread::Builder::new().name("jm-signals".into()).spawn(move || {
        let mut first = Some(first);
        for signal in signals.forever() {
            if first.take().is_none_or(|first| first.send(signal).is_err()) {
                tracing::warn!("second signal: ending without finishing the drain; unsettled messages are redelivered");
                process::exit(128 + signal);
            }
        }
    })?;
    Ok(async move {
        let name = match received.await {
            Ok(SIGTERM) => "SIGTERM",
            // The thread lives as long as the process, so there is no error.
            Ok(_) | Err(_) => "SIGINT",
        };
        tracing::info!(signal = name, "draining; a second signal ends the process at once");
    })
}
