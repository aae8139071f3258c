//! What is known of the run without the boards, moment by moment, in seconds since 1970: the boards are asked afterwards.

use std::collections::BTreeMap;

use consumers::stages::{CATALOGUE, find};
use schemas::Topic;

use crate::pipeline::FINAL;
use crate::records::Record;
use crate::scene::gateway::Decision;

/// The stage that dies.
pub(super) const DEAD: &str = "payment";

/// The article of which little is left, and how much.
pub(super) const SHORT_SKU: &str = "SKU-00042";

/// What is known.
pub(super) struct Happened {
    pub(super) begun: f64,
    pub(super) per_second: f64,
    /// The end of a steady rate, while orders still come in.
    pub(super) steady: f64,
    pub(super) still: Still,
    /// When the dead stage was started again.
    pub(super) revived: f64,
    /// Payments are declined, a job and a load run have just pushed, orders come in.
    pub(super) lively: f64,
    pub(super) run: String,
    /// Orders of that run, by outcome, as they were pushed.
    pub(super) run_accepted: u64,
    pub(super) done: Done,
    pub(super) decisions: Vec<Decision>,
}

/// A stage is dead; everything else has come to rest.
pub(super) struct Still {
    pub(super) at: f64,
    pub(super) killed: f64,
    pub(super) statuses: BTreeMap<String, i64>,
    pub(super) dead_letters: i64,
    pub(super) parked: i64,
    pub(super) short_left: i64,
    pub(super) short_skus: i64,
}

/// Every order is final.
pub(super) struct Done {
    pub(super) at: f64,
    pub(super) accepted: u64,
    pub(super) statuses: BTreeMap<String, i64>,
    /// By stage and code.
    pub(super) dead_letters: BTreeMap<(String, String), i64>,
    pub(super) database: String,
    pub(super) database_bytes: i64,
    pub(super) records: BTreeMap<Topic, Vec<Record>>,
}

impl Happened {
    /// Events that `stage` acts on which came within `seconds` before `until`, per second.
    pub(super) fn events_per_second(&self, stage: &str, until: f64, seconds: f64) -> f64 {
        let inputs = find(stage).map(|entry| entry.inputs).unwrap_or_default();
        let within = |record: &&Record| {
            let at = seconds_of(record);
            at > until - seconds
                && at <= until
                && inputs.iter().any(|input| is(record, input.as_str()))
        };
        let events = self.done.records.values().flatten().filter(within).count();
        events as f64 / seconds
    }

    /// Records of what the dead stage reads that came while it was dead, until `at`: how many by topic and partition, and when
    /// the first came.
    pub(super) fn waited(&self, at: f64) -> (BTreeMap<(Topic, i32), u64>, f64) {
        let topics = find(DEAD).map(|entry| entry.topics()).unwrap_or_default();
        let (mut waited, mut first) = (BTreeMap::new(), f64::INFINITY);
        for topic in topics {
            for record in &self.done.records[&topic] {
                let came = seconds_of(record);
                if came > self.still.killed && came <= at {
                    *waited.entry((topic, record.partition)).or_insert(0) += 1;
                    first = first.min(came);
                }
            }
        }
        (waited, first)
    }

    /// Payments captured and declined within `seconds` before `until`.
    pub(super) fn decided(&self, until: f64, seconds: f64) -> (usize, usize) {
        let within = |decision: &&Decision| decision.at > until - seconds && decision.at <= until;
        let decided = self.decisions.iter().filter(within).count();
        let declined = self.decisions.iter().filter(within).filter(|one| one.declined).count();
        (decided - declined, declined)
    }

    /// Stages but the dead one.
    pub(super) fn others() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|entry| entry.name).filter(|name| *name != DEAD)
    }

    pub(super) fn finals(&self) -> i64 {
        FINAL.iter().filter_map(|status| self.done.statuses.get(*status)).sum()
    }
}

/// When the broker has it from.
pub(super) fn seconds_of(record: &Record) -> f64 {
    record.timestamp_ms.unwrap_or_default() as f64 / 1000.0
}

fn is(record: &Record, event_type: &str) -> bool {
    record.header("ce_type").is_some_and(|found| found == event_type.as_bytes())
}
