//! How long to wait before the next attempt: doubling, capped, jittered so that lanes do not knock together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);

/// Waits of one series of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(max: Duration) -> Self {
        Self { next: FIRST.min(max), max }
    }

    /// The next wait: between half of the current step and all of it.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_below_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1));

        let waits: Vec<Duration> = (0..20).map(|_| backoff.next_wait()).collect();

        assert!(waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)));
        assert!(waits[19] >= Duration::from_millis(500));
    }
}
