//! The auditor by the clock: run after run until told to stop. A run that fails is said, and tried again when its turn comes;
//! that it keeps failing shows where it pushes, as a last success that grows old.

use std::time::Duration;

use telemetry::Shutdown;
use tokio::time::{Instant, sleep_until};

/// An audit only reads: it is left where it stands.
const GRACE: Duration = Duration::from_secs(5);

/// Runs at once, and then `every` so long, counted from beginning to beginning; late ones are not made up for.
pub(super) async fn repeat(
    every: Duration,
    mut run: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals(GRACE)?;
    loop {
        let next = Instant::now() + every;
        tokio::select! {
            ended = run() => match ended {
                Ok(reconciled) => tracing::info!(reconciled, "audited"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the audit failed; it is tried again when its turn comes");
                }
            },
            () = shutdown.wait() => return Ok(()),
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = shutdown.wait() => return Ok(()),
        }
    }
}
