//! What committed facts mean to the business: payments, stock, shipments, and how long orders took. Counted once per fact,
//! by the stage that decided it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use schemas::{Event, Timestamp};

use super::ORDER_SECONDS;
use super::traced::{Traced, order_seconds, trace_label};
use crate::runner::transaction::Committed;

/// How an order can end.
const FINAL_STATUSES: [&str; 4] = ["shipped", "rejected", "declined", "cancelled"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// The families about orders.
#[derive(Clone, Debug)]
pub(super) struct OrderFamilies {
    payments: Family<StatusLabel, Counter>,
    inventory: Family<OperationLabel, Counter>,
    shipping: Histogram,
    finished: Traced,
    finished_by_status: Family<StatusLabel, Traced, fn() -> Traced>,
}

impl OrderFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            payments: Family::default(),
            inventory: Family::default(),
            shipping: Histogram::new(ORDER_SECONDS),
            finished: order_seconds(),
            finished_by_status: Family::new_with_constructor(order_seconds as fn() -> Traced),
        };
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
        families
    }

    /// The series that `stage` moves exist from now on: of a counter that is first seen after it moved, the first move is
    /// never seen.
    pub(super) fn exist_for(&self, stage: &'static str) {
        match stage {
            "payment" => ["success", "failure"].into_iter().for_each(|status| {
                self.payments.get_or_create_owned(&StatusLabel { status });
            }),
            "order" => FINAL_STATUSES.into_iter().for_each(|status| {
                self.finished_by_status.get_or_create_owned(&StatusLabel { status });
            }),
            "inventory" => ["reserve", "reject", "release"].into_iter().for_each(|operation| {
                self.inventory.get_or_create_owned(&OperationLabel { operation });
            }),
            _ => {}
        }
    }

    /// Counts what a batch decided.
    pub(super) fn committed(&self, committed: &Committed) {
        let payment = |status| {
            self.payments.get_or_create_owned(&StatusLabel { status }).inc();
        };
        let inventory = |operation| {
            self.inventory.get_or_create_owned(&OperationLabel { operation }).inc();
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
                    self.shipping.observe(now.seconds_since(committed.applied[effect.cause].time));
                }
                _ => {}
            }
        }
        for finished in &committed.finished {
            let trace = committed.applied.get(finished.cause).and_then(trace_label);
            self.finished.observe(finished.seconds, trace.clone(), None);
            let label = StatusLabel { status: finished.status };
            let by_status = self.finished_by_status.get_or_create_owned(&label);
            by_status.observe(finished.seconds, trace, None);
        }
    }
}
