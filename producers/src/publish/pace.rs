//! Keeps a rate on average, in steps of a tenth of a second.

use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use super::source::LARGEST_CHUNK;

/// Orders per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(u32);

/// A text that is no rate.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a rate is a number of orders per second from 1 to 10000000, as in 500/s")]
pub struct InvalidRate;

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let number = text.strip_suffix("/s").unwrap_or(text).parse().map_err(|_| InvalidRate)?;
        if (1..=10_000_000).contains(&number) { Ok(Self(number)) } else { Err(InvalidRate) }
    }
}

impl Rate {
    /// Lines to send at a time.
    pub(super) fn chunk(self) -> usize {
        (self.0 as usize / 10).clamp(1, LARGEST_CHUNK)
    }
}

/// When the next chunk may go.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<Rate>,
    due: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, due: Instant::now() }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// A chunk of `lines` went out.
    pub(super) fn sent(&mut self, lines: usize) {
        let Some(Rate(rate)) = self.rate else { return };
        let cost = Duration::from_secs_f64(lines as f64 / f64::from(rate));
        // Time lost is not made up for in a burst.
        self.due = self.due.max(Instant::now()) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_an_optional_unit() {
        assert_eq!("500/s".parse::<Rate>().unwrap(), Rate(500));
        assert_eq!("500".parse::<Rate>().unwrap(), Rate(500));
        for bad in ["0", "-1", "1.5", "500/m", "", "/s", "99999999999"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chunks_grow_with_the_rate_up_to_a_bound() {
        assert_eq!(Rate(1).chunk(), 1);
        assert_eq!(Rate(1_000).chunk(), 100);
        assert_eq!(Rate(10_000_000).chunk(), LARGEST_CHUNK);
    }
}
