//! Orderly, bounded shutdown: the first SIGTERM or SIGINT asks, a second one or the deadline ends.
//!
//! A crash is always safe, so the bound may be short: what was not finished is repeated by the next owner.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells every part of a process to finish. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Not shutting down; only [`Self::begin`] starts it. For parts that run without signals, such as tests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins on SIGTERM or SIGINT. When the process is still there `grace` later, or at a second signal, it
    /// exits with status 1.
    pub fn on_signals(grace: Duration) -> anyhow::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let begun = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: finishing what is in hand"),
                _ = interrupt.recv() => tracing::info!("SIGINT: finishing what is in hand"),
            }
            begun.begin();
            tokio::select! {
                _ = terminate.recv() => tracing::warn!("second signal: leaving at once"),
                _ = interrupt.recv() => tracing::warn!("second signal: leaving at once"),
                () = tokio::time::sleep(grace) => {
                    tracing::warn!(grace_seconds = grace.as_secs(), "not finished in time: leaving");
                }
            }
            std::process::exit(1);
        });
        Ok(shutdown)
    }

    /// Starts the shutdown.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether it has started.
    pub fn begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it starts.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }
}
