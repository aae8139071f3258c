//! Ctrl-C and its relatives, heard once and never fatal: whoever listens ends in order instead.

use anyhow::Context;
use stack::Interrupt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Whether somebody wants an end.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    token: CancellationToken,
    interrupt: Interrupt,
}

impl Signals {
    /// From here on SIGINT, SIGTERM and SIGHUP no longer end this process by themselves. What follows the first is bounded,
    /// so the second has nothing to add.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let this = Self { token: CancellationToken::new(), interrupt: Interrupt::default() };
        for kind in kinds {
            let mut heard = signal(kind).context("listen for signals")?;
            let told = this.clone();
            tokio::spawn(async move {
                heard.recv().await;
                told.interrupt.trip();
                told.token.cancel();
            });
        }
        Ok(this)
    }

    /// For the start of servers, which does not run on this runtime.
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    pub(crate) fn came(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) async fn wait(&self) {
        self.token.cancelled().await;
    }
}
