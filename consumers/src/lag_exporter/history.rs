//! What only several refreshes together tell: growth of a lag, and partitions that do not move. Pure: no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::arithmetic::growth;

/// A group and a topic by name and id: a topic made anew has no past.
pub(super) type Reader = (Arc<str>, Arc<str>, Uuid);

/// Most refreshes that a trend looks back on.
const REMEMBERED: usize = 64;

/// How things were at earlier refreshes.
#[derive(Debug)]
pub(super) struct History {
    /// Seconds that a trend looks back.
    window: f64,
    /// Seconds after which what waits and does not move is stuck.
    stuck_after: f64,
    lags: BTreeMap<Reader, VecDeque<Look>>,
    since: BTreeMap<(Reader, i32), Still>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: f64,
    lag: i64,
    partitions: usize,
}

#[derive(Clone, Copy, Debug)]
struct Still {
    position: i64,
    since: f64,
    seen_at: f64,
}

impl History {
    pub(super) fn new(window: f64, stuck_after: f64) -> Self {
        Self { window, stuck_after, lags: BTreeMap::new(), since: BTreeMap::new() }
    }

    /// Whether the partition is stuck: something waits and the position has not moved for too long.
    pub(super) fn is_stuck(
        &mut self,
        now: f64,
        reader: &Reader,
        partition: i32,
        position: i64,
        lag: i64,
    ) -> bool {
        let fresh = Still { position, since: now, seen_at: now };
        let still = self.since.entry((reader.clone(), partition)).or_insert(fresh);
        if still.position != position || lag == 0 {
            *still = fresh;
        }
        still.seen_at = now;
        lag > 0 && now - still.since >= self.stuck_after
    }

    /// Records per second by which the lag of a reader over `partitions` partitions grows; `None` while unknown.
    pub(super) fn growth(
        &mut self,
        now: f64,
        reader: &Reader,
        lag: i64,
        partitions: usize,
    ) -> Option<f64> {
        let looks = self.lags.entry(reader.clone()).or_default();
        // Sums over different partitions cannot be compared.
        if looks.back().is_some_and(|last| last.partitions != partitions) {
            looks.clear();
        }
        let old = |look: &Look| look.at < now - self.window;
        while looks.len() >= REMEMBERED || looks.get(1).is_some_and(old) {
            looks.pop_front();
        }
        let first = looks.front().copied();
        looks.push_back(Look { at: now, lag, partitions });
        first.and_then(|first| growth(first.lag, lag, now - first.at))
    }

    /// Forgets what was not looked at in the refresh at `now`.
    pub(super) fn forget_others(&mut self, now: f64) {
        self.lags.retain(|_, looks| looks.back().is_some_and(|last| last.at >= now));
        self.since.retain(|_, still| still.seen_at >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        ("g".into(), "t".into(), Uuid::nil())
    }

    fn history() -> History {
        History::new(60.0, 30.0)
    }

    #[test]
    fn a_partition_is_stuck_when_something_waits_and_nothing_moves_for_too_long() {
        let mut history = history();
        let mut stuck = |now, position, lag| history.is_stuck(now, &reader(), 0, position, lag);

        assert!(!stuck(0.0, 5, 3));
        assert!(!stuck(29.0, 5, 9));
        assert!(stuck(30.0, 5, 9));
        assert!(!stuck(31.0, 6, 8), "it moved");
        assert!(!stuck(60.0, 6, 8));
        assert!(stuck(61.0, 6, 8));
    }

    #[test]
    fn a_drained_partition_that_gets_a_record_after_an_hour_is_not_stuck() {
        let mut history = history();
        let mut stuck = |now, position, lag| history.is_stuck(now, &reader(), 0, position, lag);

        assert!(!stuck(0.0, 5, 0));
        assert!(!stuck(3_600.0, 5, 0));
        assert!(!stuck(3_615.0, 5, 1));
    }

    #[test]
    fn growth_needs_two_looks_at_the_same_partitions() {
        let mut history = history();

        assert_eq!(history.growth(0.0, &reader(), 100, 2), None);
        assert_eq!(history.growth(10.0, &reader(), 150, 2), Some(5.0));
        assert_eq!(history.growth(20.0, &reader(), 999, 3), None, "a partition more");
    }

    #[test]
    fn growth_looks_back_for_a_window_and_no_longer() {
        let mut history = history();
        for (now, lag) in [(0.0, 0), (60.0, 600), (120.0, 600)] {
            history.growth(now, &reader(), lag, 1);
        }

        assert_eq!(history.growth(180.0, &reader(), 600, 1), Some(0.0));
    }

    #[test]
    fn who_vanished_starts_anew() {
        let mut history = history();
        history.growth(0.0, &reader(), 100, 1);
        history.is_stuck(0.0, &reader(), 0, 5, 3);

        history.forget_others(10.0);

        assert_eq!(history.growth(20.0, &reader(), 100, 1), None);
        assert!(!history.is_stuck(40.0, &reader(), 0, 5, 3));
    }
}
