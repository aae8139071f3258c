//! The statements of the store by name, and how long each of them takes.
//!
//! A closed set: an operation is named after its table and its function here, and its histogram is found by its place, not
//! by its label.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

macro_rules! operations {
    ($($operation:ident = $name:literal),+ $(,)?) => {
        /// What a statement is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($operation),+
        }

        impl Operation {
            /// Every operation, in the order of their places.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$operation),+];

            /// The label `operation`.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$operation => $name),+
                }
            }
        }
    };
}

operations! {
    Begin = "transaction.begin",
    Commit = "transaction.commit",
    Rollback = "transaction.rollback",
    Savepoint = "transaction.savepoint",
    RollbackToSavepoint = "transaction.rollback_to_savepoint",
    ProgressClaim = "progress.claim",
    ProgressAdvance = "progress.advance",
    ProgressRead = "progress.read",
    ProgressStanding = "progress.standing",
    OutboxInsert = "outbox.insert",
    OutboxPending = "outbox.pending",
    OutboxDelete = "outbox.delete",
    DeadLettersInsert = "dead_letters.insert",
    DeadLettersPark = "dead_letters.park",
    DeadLettersParkedAmong = "dead_letters.parked_among",
    DeadLettersReplayingAmong = "dead_letters.replaying_among",
    DeadLettersReplayed = "dead_letters.replayed",
    DeadLettersUnpark = "dead_letters.unpark",
    DeadLettersReopened = "dead_letters.reopened",
    DeadLettersWaiting = "dead_letters.waiting",
    StockLockAvailable = "stock.lock_available",
    StockAddReserved = "stock.add_reserved",
    ReservationsInsertReserved = "reservations.insert_reserved",
    ReservationsReject = "reservations.reject",
    ReservationsDigests = "reservations.digests",
    ReservationsRelease = "reservations.release",
    PaymentsRead = "payments.read",
    PaymentsInsert = "payments.insert",
    PaymentsRefund = "payments.refund",
    ShipmentsRead = "shipments.read",
    ShipmentsInsert = "shipments.insert",
    OrdersCopyNew = "orders.copy_new",
    OrdersMergePlaced = "orders.merge_placed",
    OrdersMergeFacts = "orders.merge_facts",
    OrdersLock = "orders.lock",
    OrdersCopyTimeline = "orders.copy_timeline",
    OrdersInsertTimeline = "orders.insert_timeline",
    OrdersAddStatusCounts = "orders.add_status_counts",
    SupervisionAdd = "supervision.add",
    SupervisionAmong = "supervision.among",
    SupervisionDecided = "supervision.decided",
    SupervisionSweptUntil = "supervision.swept_until",
    SupervisionSweepTo = "supervision.sweep_to",
    SupervisionOverdue = "supervision.overdue",
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// From a read by key on the same machine to the longest that a statement may take; fine around the alert at a second.
const OPERATION_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

fn operation_seconds() -> Histogram {
    Histogram::new(OPERATION_SECONDS)
}

/// How long operations take: a handle for each, resolved once per process.
#[derive(Clone, Debug)]
pub(crate) struct OperationTimes(Arc<[Histogram]>);

impl OperationTimes {
    /// Those that stages and their runner use.
    pub(crate) fn of_stages(registry: &mut Registry) -> Self {
        Self::register(registry, |operation| !operation.is_of_the_worker_alone())
    }

    /// Those that the worker uses.
    pub(crate) fn of_supervision(registry: &mut Registry) -> Self {
        Self::register(registry, |operation| {
            operation.is_of_the_worker_alone() || operation == Operation::SupervisionAdd
        })
    }

    /// Registers the family; the operations that this process `uses` have series from now on, the others none.
    fn register(registry: &mut Registry, uses: impl Fn(Operation) -> bool) -> Self {
        let family: Family<OperationLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(operation_seconds as fn() -> Histogram);
        registry.register_with_unit(
            "db_operation_duration",
            "From a statement of the store to its answer, also if that is an error, by operation",
            Unit::Seconds,
            family.clone(),
        );
        let handle = |operation: &Operation| {
            let label = OperationLabel { operation: operation.as_str() };
            if uses(*operation) { family.get_or_create_owned(&label) } else { operation_seconds() }
        };
        Self(Operation::ALL.iter().map(handle).collect())
    }

    pub(crate) fn of(&self, operation: Operation) -> &Histogram {
        &self.0[operation as usize]
    }
}

impl Operation {
    const fn is_of_the_worker_alone(self) -> bool {
        matches!(
            self,
            Self::SupervisionDecided
                | Self::SupervisionSweptUntil
                | Self::SupervisionSweepTo
                | Self::SupervisionOverdue
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_at_its_place_under_a_name_of_its_own() {
        let mut names: Vec<&str> = Operation::ALL.iter().map(|each| each.as_str()).collect();
        for (place, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, place, "{operation:?}");
        }
        names.sort_unstable();
        names.dedup();

        assert_eq!(names.len(), Operation::ALL.len());
    }
}
