//! What may be replayed next in a line of letters. Pure.
//!
//! One letter of a line is on its way at a time: published together, a later one could be applied although the one
//! before it is rejected again.

use std::collections::{BTreeSet, HashSet};

use super::filter::State;
use super::rows::{Letter, Line, Waiting};
use crate::store::dead_letters::PARKED;

/// The next step of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This letter is the first and may go.
    Replay(i64),
    /// This letter is the first, was rejected for its own sake, and nobody chose it.
    Blocked(i64),
    /// Nothing waits any more.
    Done,
}

/// `waiting` in the order in which the stage met them. Sound letters go as soon as they are first; open ones only when
/// they were `chosen`.
pub(super) fn next(waiting: &[Waiting], chosen: &HashSet<i64>) -> Next {
    match waiting.first() {
        None => Next::Done,
        Some(first) if chosen.contains(&first.id) || first.is_sound() => Next::Replay(first.id),
        Some(first) => Next::Blocked(first.id),
    }
}

/// The lines that these letters stand in.
pub(super) fn lines_of<'a>(letters: impl IntoIterator<Item = &'a Letter>) -> BTreeSet<Line> {
    letters.into_iter().map(Letter::line).collect()
}

impl Letter {
    pub(super) fn line(&self) -> Line {
        match self.order_id {
            Some(order) => Line::Order { stage: self.stage.clone(), order },
            None => Line::Alone(self.id),
        }
    }
}

impl Waiting {
    /// Whether it waits for no fault of its own: parked, parked again, or on its way already.
    fn is_sound(&self) -> bool {
        self.state != State::Open || self.code == PARKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: i64, state: State, code: &str) -> Waiting {
        Waiting { id, state, code: code.to_owned() }
    }

    #[test]
    fn parked_letters_follow_the_chosen_one_up_to_the_next_that_is_open() {
        let line = [
            waiting(5, State::Open, "bad_data"),
            waiting(7, State::Parked, PARKED),
            waiting(6, State::Open, PARKED),
            waiting(8, State::Open, "unknown_order"),
            waiting(9, State::Parked, PARKED),
        ];
        let chosen = HashSet::from([5]);

        assert_eq!(next(&line, &chosen), Next::Replay(5));
        assert_eq!(next(&line[1..], &chosen), Next::Replay(7));
        assert_eq!(next(&line[2..], &chosen), Next::Replay(6));
        assert_eq!(next(&line[3..], &chosen), Next::Blocked(8));
        assert_eq!(next(&[], &chosen), Next::Done);
    }

    #[test]
    fn no_letter_overtakes_an_open_one() {
        let line = [waiting(5, State::Open, "bad_data"), waiting(8, State::Open, "bad_data")];

        assert_eq!(next(&line, &HashSet::from([8])), Next::Blocked(5));
    }

    #[test]
    fn a_letter_left_on_its_way_by_a_crash_goes_again() {
        assert_eq!(
            next(&[waiting(5, State::Replaying, "bad_data")], &HashSet::new()),
            Next::Replay(5)
        );
    }
}
