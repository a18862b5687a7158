//! Ctrl-C and SIGTERM. Whoever does nothing about them is simply ended; whoever has a message in hand may finish with it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::exit::Code;

/// Tells of signals. The second one ends the process whoever attends to them.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    signals: watch::Receiver<Vec<Code>>,
    attended: Arc<AtomicUsize>,
}

/// While one of these lives, the first signal does not end the command: it is for its holder to see and to end well.
#[derive(Debug)]
pub(crate) struct Attention(Arc<AtomicUsize>);

impl Interrupt {
    /// From here on signals do not end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, signals) = watch::channel(Vec::new());
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => Code::Interrupted,
                    _ = terminate.recv() => Code::Terminated,
                };
                sender.send_modify(|codes| codes.push(code));
            }
        });
        Ok(Self { signals, attended: Arc::default() })
    }

    /// Resolves at the first signal, at once if there was one.
    pub(crate) async fn requested(&self) -> Code {
        self.nth(1).await
    }

    /// Whether there was a signal.
    pub(crate) fn is_requested(&self) -> bool {
        !self.signals.borrow().is_empty()
    }

    /// Takes it upon the caller to look at [`requested`](Self::requested) or [`is_requested`](Self::is_requested), and to
    /// end soon after a signal.
    pub(crate) fn attend(&self) -> Attention {
        self.attended.fetch_add(1, Ordering::SeqCst);
        Attention(Arc::clone(&self.attended))
    }

    /// Resolves at the first signal that nobody attends to, or else at the second one.
    pub(crate) async fn unattended(&self) -> Code {
        let first = self.nth(1).await;
        if self.attended.load(Ordering::SeqCst) == 0 { first } else { self.nth(2).await }
    }

    async fn nth(&self, number: usize) -> Code {
        let mut signals = self.signals.clone();
        let seen = signals.wait_for(|codes| codes.len() >= number).await.map(|codes| codes[number - 1]);
        match seen {
            Ok(code) => code,
            // The listening task lives as long as the process.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
