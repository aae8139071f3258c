//! What offsets and times mean. Pure: no clock, no broker.

/// The log of a partition: from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The position of who has read another log of the same name: beyond the end of any.
pub(super) const IN_ANOTHER_LOG: i64 = i64::MAX;

/// What waits behind a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Records not read yet, as offsets tell: gaps of compaction and transactions count.
    pub(super) lag: i64,
    /// Where the first of them may be.
    pub(super) first: i64,
    /// Records that retention removed before they were read.
    pub(super) lost: i64,
    /// Records that retention may still remove before it reaches the position.
    pub(super) margin: i64,
}

impl Waiting {
    /// Behind `position`, the first offset not read yet.
    ///
    /// A position beyond the end belongs to another log of the same name, or to a tail that the broker lost: nothing
    /// of what is there now was read, so all of it waits. Zero would make the worst case look like the best.
    pub(super) fn behind(position: i64, Bounds { start, end }: Bounds) -> Self {
        let first = if position > end { start } else { position.max(start) };
        Self { lag: end - first, first, lost: (start - position).max(0), margin: first - start }
    }
}

/// A record's age. Clocks of producers may be ahead of ours: never negative.
pub(super) fn age_seconds(now_ms: i64, record_ms: i64) -> f64 {
    now_ms.saturating_sub(record_ms).max(0) as f64 / 1000.0
}

/// When `offset` was written, from what is known of its neighbours: points of offset and time, by offset. Between two of
/// them time passed evenly; outside of them nothing is known.
pub(super) fn between(points: &[(i64, i64)], offset: i64) -> Option<i64> {
    let after = points.partition_point(|(known, _)| *known < offset);
    let (right, right_ms) = *points.get(after)?;
    if right == offset {
        return Some(right_ms);
    }
    let (left, left_ms) = *points.get(after.checked_sub(1)?)?;
    let share = (offset - left) as f64 / (right - left) as f64;
    Some(left_ms + ((right_ms - left_ms) as f64 * share).round() as i64)
}

/// Records per second by which a lag grows (negative: shrinks), between two looks `seconds` apart.
pub(crate) fn growth(earlier: i64, later: i64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| (later - earlier) as f64 / seconds)
}

/// Seconds until nothing waits, when it goes on as it did. `None` while it does not shrink.
pub(crate) fn drain_seconds(lag: i64, growth: Option<f64>) -> Option<f64> {
    match (lag, growth) {
        (0, _) => Some(0.0),
        (lag, Some(growth)) if growth < 0.0 => Some(lag as f64 / -growth),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Bounds = Bounds { start: 100, end: 200 };

    #[test]
    fn a_drained_position_has_nothing_behind_it() {
        let waiting = Waiting::behind(200, LOG);

        assert_eq!(waiting, Waiting { lag: 0, first: 200, lost: 0, margin: 100 });
    }

    #[test]
    fn what_retention_removed_is_lost_and_what_is_left_still_waits() {
        let waiting = Waiting::behind(40, LOG);

        assert_eq!(waiting, Waiting { lag: 100, first: 100, lost: 60, margin: 0 });
    }

    #[test]
    fn in_a_log_made_anew_everything_waits() {
        for position in [900, IN_ANOTHER_LOG] {
            let waiting = Waiting::behind(position, LOG);

            assert_eq!(waiting, Waiting { lag: 100, first: 100, lost: 0, margin: 0 });
        }
    }

    #[test]
    fn an_empty_log_has_no_lag_wherever_the_position_is() {
        for position in [0, 100, 101] {
            assert_eq!(Waiting::behind(position, Bounds { start: 100, end: 100 }).lag, 0);
        }
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_negative_age() {
        assert_eq!(age_seconds(1_000, 5_000), 0.0);
        assert_eq!(age_seconds(5_500, 1_000), 4.5);
        assert!(age_seconds(i64::MAX, i64::MIN).is_finite());
    }

    #[test]
    fn a_record_between_two_known_ones_is_as_old_as_its_place_says() {
        let points = [(10, 1_000), (20, 2_000), (40, 2_000)];

        assert_eq!(between(&points, 15), Some(1_500));
        assert_eq!(between(&points, 20), Some(2_000));
        assert_eq!(between(&points, 33), Some(2_000));
    }

    #[test]
    fn outside_of_what_is_known_there_is_no_guess() {
        let points = [(10, 1_000), (20, 2_000)];

        assert_eq!(between(&points, 9), None);
        assert_eq!(between(&points, 21), None);
        assert_eq!(between(&[], 0), None);
    }

    #[test]
    fn time_to_drain_is_unknown_until_the_lag_shrinks() {
        assert_eq!(drain_seconds(100, None), None);
        assert_eq!(drain_seconds(100, growth(100, 100, 10.0)), None);
        assert_eq!(drain_seconds(100, growth(50, 100, 10.0)), None);
        assert_eq!(drain_seconds(100, growth(150, 100, 10.0)), Some(20.0));
        assert_eq!(drain_seconds(0, None), Some(0.0));
        assert_eq!(growth(1, 2, 0.0), None);
    }
}
