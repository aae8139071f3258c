//! Waiting for a condition, never for a length of time: whoever waits in vain is told what was seen last.

use std::time::{Duration, Instant};

/// Short beside anything a pipeline does, long beside what asking costs.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` succeeds; its error says what it saw instead. Fails after `patience`, with what was seen last.
pub async fn eventually<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let seen = match look().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if Instant::now() >= deadline {
            return Err(seen.context(format!("{what}: not within {patience:?}; seen last")));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_in_vain_hears_what_was_seen_last() {
        let mut looks = 0;

        let waited = eventually(Duration::from_millis(120), "three", async || {
            looks += 1;
            anyhow::ensure!(looks == 0, "{looks} is not three");
            Ok(())
        });

        let error = format!("{:#}", waited.await.unwrap_err());
        assert!(error.starts_with("three: not within 120ms; seen last: "), "{error}");
        assert!(error.ends_with(&format!("{looks} is not three")), "{error}");
    }
}
