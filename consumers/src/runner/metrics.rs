//! The metrics of stages: families that are registered once, and one set of handles per stage, resolved at start so that
//! every series exists at zero, and moved per batch.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use schemas::{DecodeError, Timestamp, TopicPrefix};

use super::progress::Owned;
use super::transaction::Committed;
use crate::stage::Told;
use crate::store::operations::OperationTimes;

mod lag;
mod orders;
mod stages;
mod traced;
#[cfg(test)]
mod tests;

use lag::{LagCollector, OwnedByStage};
use orders::OrderFamilies;
use stages::{CodeLabels, OutcomeLabels, ReasonLabels, StageFamilies, StageLabel};
use traced::{Traced, trace_label};

/// Codes that stages themselves reject under; with [`DecodeError::CODES`] the closed set of the label `code`.
pub const STAGE_CODES: [&str; 3] = ["idempotency_conflict", "unknown_order", "database_refused"];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The families of every stage in this process.
#[derive(Clone, Debug)]
pub struct Families {
    stages: StageFamilies,
    orders: OrderFamilies,
    operations: OperationTimes,
    lag: LagCollector,
}

/// The handles of one stage.
#[derive(Clone, Debug)]
pub(crate) struct StageMetrics {
    stage: &'static str,
    families: Families,
    applied: Counter,
    duplicate: Counter,
    rejected: Counter,
    parked: Counter,
    retried: Counter,
    processing: Traced,
    age: Traced,
    batch: Histogram,
    pub(crate) in_flight: Gauge,
    outbox_pending: Gauge,
    pub(crate) rebalances: Counter,
    pub(crate) fenced: Counter,
    pub(crate) lost: Counter,
    /// Of the store, moved by the store itself.
    pub(crate) operations: OperationTimes,
}

/// Effects of one batch that are on their way: counted until it is dropped, however it ends.
#[derive(Debug)]
pub(crate) struct Pending(Gauge);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One batch takes between a millisecond and the transaction timeout.
const PROCESSING_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Around the alert on slow orders at 300 s, and fine below a second, where a healthy pipeline is.
const ORDER_SECONDS: [f64; 15] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

impl Families {
    /// Registers every family; once per process.
    pub fn register(registry: &mut Registry) -> Self {
        let families = Self {
            stages: StageFamilies::register(registry),
            orders: OrderFamilies::register(registry),
            operations: OperationTimes::of_stages(registry),
            lag: LagCollector::default(),
        };
        registry.register_collector(Box::new(families.lag.clone()));
        families
    }

    /// The handles of `stage`; its series exist from now on, those of `owned` partitions while it owns them.
    pub(crate) fn stage(
        &self,
        stage: &'static str,
        prefix: &TopicPrefix,
        owned: &Owned,
    ) -> StageMetrics {
        self.lag.add(OwnedByStage { stage, group: prefix.group(stage), owned: owned.clone() });
        self.orders.exist_for(stage);
        let families = &self.stages;
        let label = StageLabel { stage };
        let outcome =
            |outcome| families.events.get_or_create_owned(&OutcomeLabels { stage, outcome });
        for code in DecodeError::CODES.into_iter().chain(STAGE_CODES) {
            families.dead_letters.get_or_create_owned(&CodeLabels { stage, code });
        }
        for reason in ["transient", "rejected", "fenced"] {
            families.errors.get_or_create_owned(&ReasonLabels { stage, reason });
        }
        if stage == "workflow" {
            for outcome in ["applied", "closed", "untold"] {
                families.messages.get_or_create_owned(&OutcomeLabels { stage, outcome });
            }
        }
        StageMetrics {
            stage,
            families: self.clone(),
            applied: outcome("applied"),
            duplicate: outcome("duplicate"),
            rejected: outcome("rejected"),
            parked: outcome("parked"),
            retried: outcome("retried"),
            processing: families.processing.get_or_create_owned(&label),
            age: families.age.get_or_create_owned(&label),
            batch: families.batch.get_or_create_owned(&label),
            in_flight: families.in_flight.get_or_create_owned(&label),
            outbox_pending: families.outbox_pending.get_or_create_owned(&label),
            rebalances: families.rebalances.get_or_create_owned(&label),
            fenced: families.fenced.get_or_create_owned(&label),
            lost: families.lost.get_or_create_owned(&label),
            operations: self.operations.clone(),
        }
    }
}

impl StageMetrics {
    /// A batch is committed, `seconds` after its records were in hand.
    pub(crate) fn committed(&self, committed: &Committed, seconds: f64) {
        let events = committed.applied.len();
        self.applied.inc_by((events - committed.duplicates.min(events)) as u64);
        self.duplicate.inc_by(committed.duplicates as u64);
        self.rejected.inc_by(committed.refused.len() as u64);
        self.parked.inc_by(committed.parked as u64);
        self.batch.observe(events as f64);
        let now = Timestamp::now();
        // Events of a batch wait for each other, so each of them took as long as the batch. One example per batch is
        // enough, and a label per event would cost an allocation.
        let mut exemplified = false;
        for received in &committed.applied {
            let trace = if exemplified { None } else { trace_label(received) };
            exemplified |= trace.is_some();
            self.processing.observe(seconds, trace.clone(), None);
            self.age.observe(now.seconds_since(received.time), trace, None);
        }
        for refused in &committed.refused {
            let labels = CodeLabels { stage: self.stage, code: refused.code };
            self.families.stages.dead_letters.get_or_create_owned(&labels).inc();
            self.error("rejected");
        }
        self.families.orders.committed(committed);
    }

    /// An attempt failed and will be repeated.
    pub(crate) fn retried(&self, events: usize) {
        self.retried.inc_by(events as u64);
        self.error("transient");
    }

    /// Messages were sent to the stage's outlet.
    pub(crate) fn told(&self, told: &Told) {
        let untold = told.untold.as_ref().map_or(0, |(messages, _)| messages.len() as u64);
        let counts = [("applied", told.applied), ("closed", told.closed), ("untold", untold)];
        for (outcome, count) in counts {
            let labels = OutcomeLabels { stage: self.stage, outcome };
            self.families.stages.messages.get_or_create_owned(&labels).inc_by(count);
        }
    }

    /// The effects of a batch are to be told.
    pub(crate) fn pending(&self) -> Pending {
        self.outbox_pending.inc();
        Pending(self.outbox_pending.clone())
    }

    /// So many dead letters and parked orders wait for a person. Before this was read once, nothing is said about it:
    /// zero would be good news that nobody has heard.
    pub(crate) fn waiting(&self, dead_letters: i64, parked_orders: i64) {
        let label = StageLabel { stage: self.stage };
        let families = &self.families.stages;
        families.dead_letters_open.get_or_create_owned(&label).set(dead_letters);
        families.parked_orders.get_or_create_owned(&label).set(parked_orders);
    }

    /// A batch was given up to another owner.
    pub(crate) fn stepped_down(&self) {
        self.fenced.inc();
        self.error("fenced");
    }

    fn error(&self, reason: &'static str) {
        let labels = ReasonLabels { stage: self.stage, reason };
        self.families.stages.errors.get_or_create_owned(&labels).inc();
    }
}
