//! From when on orders are looked at: a moment, or so long before each run.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use schemas::Timestamp;

use super::parse_duration;

/// The beginning of what is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// The same for every run.
    Moment(Timestamp),
    /// A job that runs again and again looks at its last hours.
    Before(Duration),
}

impl Since {
    /// The moment, for a run that begins now.
    pub(super) fn now(self) -> anyhow::Result<Timestamp> {
        match self {
            Self::Moment(moment) => Ok(moment),
            Self::Before(length) => {
                let micros = i64::try_from(length.as_micros()).context("too long a duration")?;
                let since = Timestamp::now().as_micros().saturating_sub(micros);
                Timestamp::from_micros(since).context("too long a duration")
            }
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(length) = parse_duration(text) {
            let since = Self::Before(length);
            return since.now().map(|_| since).map_err(|error| format!("{error:#}"));
        }
        Timestamp::parse(text).map(Self::Moment).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_from_each_run_and_a_moment_stays() {
        let before: Since = "3h".parse().unwrap();
        let moment: Since = "2026-01-01T00:00:00Z".parse().unwrap();

        let ago = Timestamp::now().as_micros() - before.now().unwrap().as_micros();
        assert!((10_800_000_000..10_801_000_000).contains(&ago), "{ago}");
        assert_eq!(moment.now().unwrap(), Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        assert!("yesterday".parse::<Since>().is_err());
        assert!("99999999999d".parse::<Since>().is_err());
    }
}
