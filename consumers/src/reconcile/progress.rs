//! Decides whether the pipeline is quiet: every record applied, every effect out.

use std::collections::BTreeMap;

use schemas::Topic;
use schemas::components::COMPONENTS;

use super::topics::{Bounds, Offsets};

/// How far the stages are.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// By stage, the next offset of each partition it ever owned.
    pub(super) next_offsets: BTreeMap<String, Offsets>,
    /// Batches whose effects are not known to be out.
    pub(super) outbox_rows: u64,
}

/// What is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) records: u64,
    pub(super) stages: u64,
    pub(super) outbox_rows: u64,
}

/// Follows orders without deciding on them, and runs only where there is a Temporal: it counts when it ever ran.
const OPTIONAL_STAGE: &str = "workflow";

impl Backlog {
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Progress {
    /// What is left of the records within `bounds`. Quiet for good when the bounds were asked for after this
    /// progress was read, and nobody puts in new records.
    pub(super) fn backlog(&self, bounds: &Bounds) -> Backlog {
        let mut backlog = Backlog { outbox_rows: self.outbox_rows, ..Backlog::default() };
        for component in COMPONENTS.iter().filter(|component| component.is_stage) {
            let next_offsets = self.next_offsets.get(component.name);
            if next_offsets.is_none() && component.name == OPTIONAL_STAGE {
                continue;
            }
            let reads = |topic: Topic| component.receives_from(topic).next().is_some();
            let records: u64 = bounds
                .ends
                .iter()
                .filter(|((topic, _), _)| reads(*topic))
                .map(|(place, end)| {
                    let start = bounds.starts.get(place).copied().unwrap_or(0);
                    let next = next_offsets
                        .and_then(|offsets| offsets.get(place))
                        .copied()
                        .unwrap_or(start);
                    (end - next.max(start)).max(0).unsigned_abs()
                })
                .sum();
            backlog.records += records;
            backlog.stages += u64::from(records > 0);
        }
        backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(end: i64) -> Bounds {
        let place = (Topic::Shipments, 0);
        Bounds { starts: Offsets::from([(place, 2)]), ends: Offsets::from([(place, end)]) }
    }

    fn progress(stages: &[(&str, i64)]) -> Progress {
        let offsets = |next| Offsets::from([((Topic::Shipments, 0), next)]);
        let next_offsets =
            stages.iter().map(|(stage, next)| ((*stage).to_owned(), offsets(*next))).collect();
        Progress { next_offsets, outbox_rows: 0 }
    }

    #[test]
    fn a_stage_that_never_ran_has_everything_before_it() {
        let progress = progress(&[("inventory", 10), ("payment", 10)]);

        assert_eq!(
            progress.backlog(&bounds(10)),
            Backlog { records: 8, stages: 1, outbox_rows: 0 }
        );
    }

    #[test]
    fn supervision_counts_only_where_it_ever_ran() {
        let without = progress(&[("inventory", 10), ("payment", 10), ("order", 10)]);
        let behind =
            progress(&[("inventory", 10), ("payment", 10), ("order", 10), ("workflow", 9)]);

        assert!(without.backlog(&bounds(10)).is_empty());
        assert_eq!(behind.backlog(&bounds(10)).records, 1);
    }

    #[test]
    fn effects_that_are_not_out_keep_it_from_being_quiet() {
        let mut progress = progress(&[("inventory", 10), ("payment", 10), ("order", 10)]);
        progress.outbox_rows = 1;

        assert!(!progress.backlog(&bounds(10)).is_empty());
    }
}
