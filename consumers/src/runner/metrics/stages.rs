//! The families that every stage has, by the label `stage`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Histograms;
use super::traced::{Traced, order_seconds, processing_seconds};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabel {
    pub(super) stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) stage: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CodeLabels {
    pub(super) stage: &'static str,
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) stage: &'static str,
    pub(super) reason: &'static str,
}

/// The families, registered once per process.
#[derive(Clone, Debug)]
pub(super) struct StageFamilies {
    pub(super) events: Family<OutcomeLabels, Counter>,
    pub(super) messages: Family<OutcomeLabels, Counter>,
    pub(super) processing: Family<StageLabel, Traced, fn() -> Traced>,
    pub(super) age: Family<StageLabel, Traced, fn() -> Traced>,
    pub(super) batch: Histograms<StageLabel>,
    pub(super) in_flight: Family<StageLabel, Gauge>,
    pub(super) outbox_pending: Family<StageLabel, Gauge>,
    pub(super) dead_letters: Family<CodeLabels, Counter>,
    pub(super) errors: Family<ReasonLabels, Counter>,
    pub(super) rebalances: Family<StageLabel, Counter>,
    pub(super) fenced: Family<StageLabel, Counter>,
    pub(super) lost: Family<StageLabel, Counter>,
    pub(super) dead_letters_open: Family<StageLabel, Gauge>,
    pub(super) parked_orders: Family<StageLabel, Gauge>,
}

fn batch_events() -> Histogram {
    Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0])
}

impl StageFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            events: Family::default(),
            messages: Family::default(),
            processing: Family::new_with_constructor(processing_seconds as fn() -> Traced),
            age: Family::new_with_constructor(order_seconds as fn() -> Traced),
            batch: Family::new_with_constructor(batch_events as fn() -> Histogram),
            in_flight: Family::default(),
            outbox_pending: Family::default(),
            dead_letters: Family::default(),
            errors: Family::default(),
            rebalances: Family::default(),
            fenced: Family::default(),
            lost: Family::default(),
            dead_letters_open: Family::default(),
            parked_orders: Family::default(),
        };
        families.register_flow(registry);
        families.register_trouble(registry);
        families
    }

    /// What goes through, how fast, how much at a time.
    fn register_flow(&self, registry: &mut Registry) {
        registry.register(
            "stage_events",
            "Events by what became of them; retried counts attempts that failed and will be repeated",
            self.events.clone(),
        );
        registry.register(
            "stage_messages",
            "Messages to a system outside Kafka by answer: applied, closed (what it is about had ended), untold (will be repeated)",
            self.messages.clone(),
        );
        registry.register_with_unit(
            "stage_processing",
            "From records in hand to commit, per event",
            Unit::Seconds,
            self.processing.clone(),
        );
        registry.register_with_unit(
            "stage_event_age",
            "Age of events (now minus ce_time) when they were committed",
            Unit::Seconds,
            self.age.clone(),
        );
        registry.register("stage_batch_events", "Events per committed batch", self.batch.clone());
        registry.register(
            "stage_in_flight_events",
            "Events taken by a lane and not committed yet",
            self.in_flight.clone(),
        );
        registry.register(
            "stage_outbox_pending",
            "Batches whose effects this process has committed or taken over, and not all of them are acknowledged",
            self.outbox_pending.clone(),
        );
    }

    /// What goes wrong, and what moves.
    fn register_trouble(&self, registry: &mut Registry) {
        registry.register(
            "dead_letters",
            "Records set aside because they can never be applied",
            self.dead_letters.clone(),
        );
        registry.register(
            "dead_letters_open",
            "Dead letters that wait for a person, in all partitions of the stage: every process of it says the same",
            self.dead_letters_open.clone(),
        );
        registry.register(
            "parked_orders",
            "Orders whose events wait behind a dead letter; every process of the stage says the same",
            self.parked_orders.clone(),
        );
        registry.register(
            "order_processing_errors",
            "Failures by stage and reason; transient ones are retried",
            self.errors.clone(),
        );
        registry.register(
            "stage_rebalances",
            "Assignments of partitions to this process",
            self.rebalances.clone(),
        );
        registry.register(
            "stage_fenced",
            "Batches given up because their partition is not where this process left it",
            self.fenced.clone(),
        );
        registry.register(
            "stage_lost_records",
            "Records that the broker deleted before the stage read them",
            self.lost.clone(),
        );
    }
}
