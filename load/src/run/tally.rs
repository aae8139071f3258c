//! Counts what vegeta tells, while it comes, and keeps what percentiles need.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use uuid::Uuid;

use super::hit::{Hit, Meaning};
use super::observed::{Observed, Quantiles};
use super::profile::Step;

const NANOS: f64 = 1e9;

/// Everything heard so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: HashSet<Uuid>,
    pub(crate) sent: u64,
    /// When the last answer, or the lack of one, was heard of.
    pub(crate) last_heard: Option<Instant>,
    orders_sent: u64,
    repeated: u64,
    rejected: BTreeMap<String, u64>,
    unknown: BTreeMap<String, u64>,
    others: BTreeMap<String, u64>,
    /// Seconds from sent to accepted.
    answered: Vec<f64>,
    /// By step: when, for how long, which number.
    timings: Vec<Vec<Timing>>,
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    sent_at: u64,
    latency: u64,
    number: u64,
}

/// A request as its client would have felt it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Felt {
    /// When it should have been sent, in seconds since 1970.
    pub(crate) due: f64,
    /// Seconds from then to the answer.
    pub(crate) latency: f64,
}

impl Tally {
    pub(crate) fn hear(&mut self, step: usize, hit: Hit) {
        let Hit { sent_at, latency, number, meaning } = hit;
        let more = |counts: &mut BTreeMap<String, u64>, name: String| {
            *counts.entry(name).or_default() += 1;
        };
        let is_order =
            matches!(meaning, Meaning::Accepted(_) | Meaning::Rejected(_) | Meaning::Unknown(_));
        match meaning {
            Meaning::Nothing => return,
            Meaning::Accepted(id) => {
                self.repeated += u64::from(!self.accepted.insert(id));
                self.answered.push(latency as f64 / NANOS);
            }
            Meaning::Rejected(code) => more(&mut self.rejected, code),
            Meaning::Unknown(what) => more(&mut self.unknown, what),
            Meaning::Other(kind, status) => more(&mut self.others, format!("{kind} {status}")),
        }
        self.sent += 1;
        self.last_heard = Some(Instant::now());
        self.orders_sent += u64::from(is_order);
        if self.timings.len() <= step {
            self.timings.resize(step + 1, Vec::new());
        }
        self.timings[step].push(Timing { sent_at, latency, number });
    }

    pub(crate) fn rejected_orders(&self) -> u64 {
        self.rejected.values().chain(self.unknown.values()).sum()
    }

    /// Free of coordinated omission: a request that vegeta sent late, because it was waiting for answers or for the
    /// processor, has waited since its turn.
    pub(crate) fn felt(&self, steps: &[Step]) -> Vec<Felt> {
        let of_step = |(timings, step): (&Vec<Timing>, &Step)| {
            let interval = NANOS / f64::from(step.rate);
            let turn = move |timing: &Timing| (timing.number + 1) as f64 * interval;
            // The request that was least late was in time.
            let first = timings.iter().map(|timing| timing.sent_at).min().unwrap_or(0);
            let since_first = move |timing: &Timing| (timing.sent_at - first) as f64;
            let begun =
                timings.iter().map(|timing| since_first(timing) - turn(timing)).fold(0.0, f64::min);
            let felt = timings.iter().map(move |timing| {
                let late = since_first(timing) - turn(timing) - begun;
                Felt {
                    due: first as f64 / NANOS + (turn(timing) + begun) / NANOS,
                    latency: (timing.latency as f64 + late) / NANOS,
                }
            });
            felt.collect::<Vec<_>>()
        };
        self.timings.iter().zip(steps).flat_map(of_step).collect()
    }

    /// What the client knows.
    pub(crate) fn observed(&self) -> Observed {
        Observed {
            sent: self.sent,
            orders_sent: self.orders_sent,
            accepted: self.accepted.len() as u64,
            rejected: self.rejected.clone(),
            unknown: self.unknown.clone(),
            others: self.others.clone(),
            repeated: self.repeated,
            answered: Quantiles::of(self.answered.clone()),
            ..Observed::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn hit(number: u64, sent_at_ms: u64, latency_ms: u64) -> Hit {
        let meaning = Meaning::Accepted(Uuid::from_u128(number.into()));
        let sent_at = (1_000_000 + sent_at_ms) * MILLI;
        Hit { sent_at, latency: latency_ms * MILLI, number, meaning }
    }

    #[test]
    fn a_request_that_was_sent_late_has_waited_since_its_turn() {
        let mut tally = Tally::default();
        // Ten a second. The third should have left at 300 ms but was held up for half a second.
        for hit in [hit(0, 100, 5), hit(1, 200, 5), hit(2, 800, 5), hit(3, 801, 5)] {
            tally.hear(0, hit);
        }

        let felt = tally.felt(&[Step { rate: 10, seconds: 1 }]);

        let latencies: Vec<_> = felt.iter().map(|felt| (felt.latency * 1e3).round()).collect();
        assert_eq!(latencies, [5.0, 5.0, 505.0, 406.0]);
        assert_eq!((felt[2].due - felt[0].due).round(), 0.0);
        assert!((felt[2].due - felt[0].due - 0.2).abs() < 1e-6, "{felt:?}");
    }

    #[test]
    fn an_id_that_was_accepted_before_is_a_repeat() {
        let mut tally = Tally::default();
        tally.hear(0, hit(1, 0, 1));
        tally.hear(0, hit(2, 1, 1));
        tally.hear(1, hit(1, 2, 1));

        let seen = tally.observed();

        assert_eq!((seen.sent, seen.accepted, seen.repeated), (3, 2, 1));
    }
}
