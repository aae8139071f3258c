//! The metrics of stages. One struct of families, registered once; one set of handles per stage, resolved at start so
//! that every series exists at zero, and moved per batch.

use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use schemas::{DecodeError, Event, Timestamp, TopicPrefix};
use telemetry::TraceContext;

use super::progress::{Owned, Partition};
use super::transaction::Committed;
use crate::stage::{Received, Told};

/// Codes that stages themselves reject under; with [`DecodeError::CODES`] the closed set of the label `code`.
pub const STAGE_CODES: [&str; 3] = ["idempotency_conflict", "unknown_order", "database_refused"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    stage: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    stage: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    stage: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// Names the trace of an observation: an exemplar, never a label of a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TraceLabel {
    trace_id: String,
}

type Traced = HistogramWithExemplars<TraceLabel>;

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The families of every stage in this process.
#[derive(Clone, Debug)]
pub struct Families {
    events: Family<OutcomeLabels, Counter>,
    messages: Family<OutcomeLabels, Counter>,
    processing: Family<StageLabel, Traced, fn() -> Traced>,
    age: Family<StageLabel, Traced, fn() -> Traced>,
    batch: Histograms<StageLabel>,
    in_flight: Family<StageLabel, Gauge>,
    outbox_pending: Family<StageLabel, Gauge>,
    dead_letters: Family<CodeLabels, Counter>,
    errors: Family<ReasonLabels, Counter>,
    rebalances: Family<StageLabel, Counter>,
    fenced: Family<StageLabel, Counter>,
    lost: Family<StageLabel, Counter>,
    dead_letters_open: Family<StageLabel, Gauge>,
    parked_orders: Family<StageLabel, Gauge>,
    payments: Family<StatusLabel, Counter>,
    inventory: Family<OperationLabel, Counter>,
    shipping: Histogram,
    finished: Traced,
    finished_by_status: Family<StatusLabel, Traced, fn() -> Traced>,
    database: Histograms<OperationLabel>,
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
    transaction: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) outbox_pending: Gauge,
    pub(crate) rebalances: Counter,
    pub(crate) fenced: Counter,
    pub(crate) lost: Counter,
    pub(crate) dead_letters_open: Gauge,
    pub(crate) parked_orders: Gauge,
}

/// One batch takes between a millisecond and the transaction timeout.
const PROCESSING_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

fn processing_seconds() -> Histogram {
    Histogram::new(PROCESSING_SECONDS)
}

fn traced_processing_seconds() -> Traced {
    HistogramWithExemplars::new(PROCESSING_SECONDS.into_iter())
}

/// Around the alert on slow orders at 300 s, and fine below a second, where a healthy pipeline is.
const ORDER_SECONDS: [f64; 15] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

fn order_seconds() -> Histogram {
    Histogram::new(ORDER_SECONDS)
}

fn traced_order_seconds() -> Traced {
    HistogramWithExemplars::new(ORDER_SECONDS.into_iter())
}

fn batch_events() -> Histogram {
    Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0])
}

impl Families {
    /// Registers every family; once per process.
    pub fn register(registry: &mut Registry) -> Self {
        let families = Self {
            events: Family::default(),
            messages: Family::default(),
            processing: Family::new_with_constructor(traced_processing_seconds as fn() -> Traced),
            age: Family::new_with_constructor(traced_order_seconds as fn() -> Traced),
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
            payments: Family::default(),
            inventory: Family::default(),
            shipping: order_seconds(),
            finished: traced_order_seconds(),
            finished_by_status: Family::new_with_constructor(
                traced_order_seconds as fn() -> Traced,
            ),
            database: Family::new_with_constructor(processing_seconds as fn() -> Histogram),
            lag: LagCollector::default(),
        };
        registry.register("stage_events", "Events by what became of them; retried counts attempts that failed and will be repeated", families.events.clone());
        registry.register(
            "stage_messages",
            "Messages to a system outside Kafka by answer: applied, closed (what it is about had ended), untold (will be repeated)",
            families.messages.clone(),
        );
        registry.register_with_unit(
            "stage_processing",
            "From records in hand to commit, per event",
            Unit::Seconds,
            families.processing.clone(),
        );
        registry.register_with_unit(
            "stage_event_age",
            "Age of events (now minus ce_time) when they were committed",
            Unit::Seconds,
            families.age.clone(),
        );
        registry.register(
            "stage_batch_events",
            "Events per committed batch",
            families.batch.clone(),
        );
        registry.register(
            "stage_in_flight_events",
            "Events taken by a lane and not committed yet",
            families.in_flight.clone(),
        );
        registry.register(
            "stage_outbox_pending",
            "Batches whose effects are committed and not all acknowledged yet",
            families.outbox_pending.clone(),
        );
        registry.register(
            "dead_letters",
            "Records set aside because they can never be applied",
            families.dead_letters.clone(),
        );
        registry.register(
            "dead_letters_open",
            "Dead letters that wait for a person",
            families.dead_letters_open.clone(),
        );
        registry.register(
            "parked_orders",
            "Orders whose events wait behind a dead letter",
            families.parked_orders.clone(),
        );
        registry.register(
            "order_processing_errors",
            "Failures by stage and reason; transient ones are retried",
            families.errors.clone(),
        );
        registry.register(
            "stage_rebalances",
            "Assignments of partitions to this process",
            families.rebalances.clone(),
        );
        registry.register(
            "stage_fenced",
            "Batches given up because another process owns their partition",
            families.fenced.clone(),
        );
        registry.register(
            "stage_lost_records",
            "Records that the broker deleted before the stage read them",
            families.lost.clone(),
        );
        registry.register("payments_processed", "Payments by result", families.payments.clone());
        registry.register(
            "inventory_updates",
            "Decisions on stock by operation",
            families.inventory.clone(),
        );
        registry.register_with_unit(
            "shipping_arrangement",
            "From paid to shipment arranged",
            Unit::Seconds,
            families.shipping.clone(),
        );
        registry.register_with_unit(
            "order_processing",
            "From accepted to final",
            Unit::Seconds,
            families.finished.clone(),
        );
        registry.register_with_unit(
            "order_processing_duration",
            "From accepted to final, by final status",
            Unit::Seconds,
            families.finished_by_status.clone(),
        );
        registry.register_with_unit(
            "db_operation_duration",
            "From records in hand to commit, per batch; the operation is the stage",
            Unit::Seconds,
            families.database.clone(),
        );
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
        let label = StageLabel { stage };
        let outcome = |outcome| self.events.get_or_create_owned(&OutcomeLabels { stage, outcome });
        for code in DecodeError::CODES.into_iter().chain(STAGE_CODES) {
            self.dead_letters.get_or_create_owned(&CodeLabels { stage, code });
        }
        for reason in ["transient", "rejected", "fenced"] {
            self.errors.get_or_create_owned(&ReasonLabels { stage, reason });
        }
        match stage {
            "payment" => ["success", "failure"].into_iter().for_each(|status| {
                self.payments.get_or_create_owned(&StatusLabel { status });
            }),
            "inventory" => ["reserve", "reject", "release"].into_iter().for_each(|operation| {
                self.inventory.get_or_create_owned(&OperationLabel { operation });
            }),
            "workflow" => ["applied", "closed", "untold"].into_iter().for_each(|outcome| {
                self.messages.get_or_create_owned(&OutcomeLabels { stage, outcome });
            }),
            _ => {}
        }
        StageMetrics {
            stage,
            families: self.clone(),
            applied: outcome("applied"),
            duplicate: outcome("duplicate"),
            rejected: outcome("rejected"),
            parked: outcome("parked"),
            retried: outcome("retried"),
            processing: self.processing.get_or_create_owned(&label),
            age: self.age.get_or_create_owned(&label),
            batch: self.batch.get_or_create_owned(&label),
            transaction: self.database.get_or_create_owned(&OperationLabel { operation: stage }),
            in_flight: self.in_flight.get_or_create_owned(&label),
            outbox_pending: self.outbox_pending.get_or_create_owned(&label),
            rebalances: self.rebalances.get_or_create_owned(&label),
            fenced: self.fenced.get_or_create_owned(&label),
            lost: self.lost.get_or_create_owned(&label),
            dead_letters_open: self.dead_letters_open.get_or_create_owned(&label),
            parked_orders: self.parked_orders.get_or_create_owned(&label),
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
        self.transaction.observe(seconds);
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
            self.families.dead_letters.get_or_create_owned(&labels).inc();
            self.error("rejected");
        }
        self.facts(committed);
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
            self.families.messages.get_or_create_owned(&labels).inc_by(count);
        }
    }

    /// A batch was given up to another owner.
    pub(crate) fn stepped_down(&self) {
        self.fenced.inc();
        self.error("fenced");
    }

    fn error(&self, reason: &'static str) {
        self.families.errors.get_or_create_owned(&ReasonLabels { stage: self.stage, reason }).inc();
    }

    /// What the committed facts mean to the business.
    fn facts(&self, committed: &Committed) {
        let payment = |status| {
            self.families.payments.get_or_create_owned(&StatusLabel { status }).inc();
        };
        let inventory = |operation| {
            self.families.inventory.get_or_create_owned(&OperationLabel { operation }).inc();
        };
        let now = Timestamp::now();
        for effect in &committed.effects {
            match &effect.event {
                Event::PaymentCaptured(_) => payment("success"),
                Event::PaymentDeclined(_) => payment("failure"),
                Event::StockReserved(_) => inventory("reserve"),
                Event::StockRejected(_) => inventory("reject"),
                Event::StockReleased(_) => inventory("release"),
                Event::ShipmentArranged(_) => {
                    self.families
                        .shipping
                        .observe(now.seconds_since(committed.applied[effect.cause].time));
                }
                _ => {}
            }
        }
        for finished in &committed.finished {
            let trace = committed.applied.get(finished.cause).and_then(trace_label);
            self.families.finished.observe(finished.seconds, trace.clone(), None);
            let label = StatusLabel { status: finished.status };
            let by_status = self.families.finished_by_status.get_or_create_owned(&label);
            by_status.observe(finished.seconds, trace, None);
        }
    }
}

/// The trace that an event belongs to, if somebody records it: an exemplar that leads nowhere helps nobody.
fn trace_label(received: &Received) -> Option<TraceLabel> {
    let text = received.traceparent.as_deref().filter(|text| TraceContext::may_be_sampled(text))?;
    let trace = TraceContext::parse(text.as_bytes())?;
    Some(TraceLabel { trace_id: trace.trace_id().to_owned() })
}

/// Lag and progress of the partitions each stage owns here, read when scraped: never stale, gone when revoked.
#[derive(Clone, Debug, Default)]
struct LagCollector {
    stages: Arc<Mutex<Vec<OwnedByStage>>>,
}

#[derive(Clone, Debug)]
struct OwnedByStage {
    stage: &'static str,
    group: String,
    owned: Owned,
}

impl LagCollector {
    fn add(&self, stage: OwnedByStage) {
        self.stages.lock().expect("no code panics while it holds this lock").push(stage);
    }

    /// Encodes one family; a partition without a `value` has no series.
    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        owner: impl for<'a> Fn(&'a OwnedByStage) -> (&'static str, &'a str),
        value: impl Fn(&Partition) -> Option<f64>,
    ) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for stage in self.stages.lock().expect("no code panics while it holds this lock").iter() {
            for partition in stage.owned.all() {
                let Some(value) = value(&partition) else { continue };
                let number = partition.source.partition.to_string();
                let topic = partition.source.topic.as_str();
                let labels = [owner(stage), ("topic", topic), ("partition", number.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for LagCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let now = Timestamp::now();
        let lag = (
            "kafka_consumergroup_lag",
            "Records after the last committed one, per partition owned here",
        );
        let seconds = (
            "kafka_consumergroup_lag_seconds",
            "Age of the oldest record not yet committed; 0 when drained",
        );
        let progress = (
            "stage_last_progress_timestamp_seconds",
            "When the partition last moved, or was assigned",
        );
        self.family(
            &mut encoder,
            lag,
            |stage| ("consumergroup", &stage.group),
            |p| p.lag().map(|lag| lag as f64),
        )?;
        self.family(
            &mut encoder,
            seconds,
            |stage| ("consumergroup", &stage.group),
            |p| p.lag_seconds(now),
        )?;
        self.family(
            &mut encoder,
            progress,
            |stage| ("stage", stage.stage),
            |p| Some(p.last_progress_seconds()),
        )
    }
}
