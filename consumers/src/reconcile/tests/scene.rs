//! What topics and tables say together, and what the auditor says to it.

use std::collections::BTreeMap;

use schemas::{Decoded, Envelope, Event, EventId};

use super::tale::{SKU, Tale, UNITS, time};
use crate::reconcile::audit::{World, audit};
use crate::reconcile::ledger::{Ledger, Place};
use crate::reconcile::report::Report;
use crate::reconcile::rules::Kind;
use crate::reconcile::states::ReservationState;
use crate::reconcile::supervision::{Counts, Expected};
use crate::reconcile::tables::{Snapshot, StatusCount, Stock};
use crate::reconcile::topics::Offsets;

/// What the topics and the tables say together.
pub(super) struct Scene {
    pub(super) tales: Vec<Tale>,
    pub(super) snapshot: Snapshot,
    pub(super) quiet: bool,
    pub(super) windowed: bool,
    pub(super) unreadable: Vec<Place>,
    pub(super) set_aside: Vec<Place>,
    pub(super) starts: Offsets,
    /// Who has to have a workflow, where they are looked at.
    pub(super) expected: Option<Expected>,
}

impl Scene {
    pub(super) fn of(tales: impl Into<Vec<Tale>>) -> Self {
        let tales = tales.into();
        let held = tales
            .iter()
            .filter(|tale| tale.reservation == Some(ReservationState::Reserved))
            .count();
        let units = i64::try_from(held).unwrap() * i64::from(UNITS);
        let stock = Stock {
            sku: SKU.to_owned(),
            on_hand: 1_000_000,
            reserved: units,
            in_reservations: units,
        };
        let mut statuses: BTreeMap<String, StatusCount> = BTreeMap::new();
        for status in tales.iter().filter_map(|tale| tale.status) {
            let count = statuses.entry(status.as_str().to_owned()).or_default();
            count.rows += 1;
            count.counted += 1;
        }
        Self {
            tales,
            snapshot: Snapshot { stock: vec![stock], statuses, ..Snapshot::default() },
            quiet: true,
            windowed: false,
            unreadable: Vec::new(),
            set_aside: Vec::new(),
            starts: Offsets::new(),
            expected: None,
        }
    }

    pub(super) fn report(self) -> Report {
        let mut ledger = Ledger::with_capacity(self.tales.len(), self.windowed);
        for (id, event) in self.tales.iter().flat_map(|tale| &tale.events) {
            ledger.event(&decoded(*id, event));
        }
        self.unreadable.iter().for_each(|place| ledger.unreadable(*place));
        for tale in &self.tales {
            if let Some(status) = tale.status {
                ledger.order_row(tale.order, status, tale.total_cents);
            }
            if let Some(state) = tale.reservation {
                ledger.reservation_row(tale.order, state);
            }
            if let Some((state, amount)) = tale.payment {
                ledger.payment_row(tale.order, state, amount);
            }
            if let Some(state) = tale.shipment {
                ledger.shipment_row(tale.order, state);
            }
            for (id, event_type) in &tale.timeline {
                ledger.timeline_row(tale.order, *id, *event_type);
            }
            if tale.dead_lettered {
                ledger.dead_letter(tale.order);
            }
            for workflow in &tale.workflows {
                ledger.workflow(tale.order, *workflow);
            }
            if tale.moving {
                ledger.late(tale.order);
            }
        }
        ledger.set_aside.extend(self.set_aside);
        let world = World {
            quiet: self.quiet,
            starts: self.starts,
            snapshot: self.snapshot,
            max_ids: 3,
            workflows: self.expected.map(|expected| (Counts::default(), expected)),
        };
        audit(&ledger, &world)
    }
}

pub(super) fn report(tales: impl Into<Vec<Tale>>) -> Report {
    Scene::of(tales).report()
}

/// The one finding is `kind: what`, and it is counted.
#[track_caller]
pub(super) fn assert_found(report: &Report, kind: Kind, what: &str) {
    let found: Vec<_> =
        report.findings.iter().map(|finding| (finding.kind, finding.what)).collect();
    assert!(found.contains(&(kind, what)), "{found:?}");
    let counted = match kind {
        Kind::Lost => report.lost,
        Kind::Duplicated => report.duplicated,
        Kind::Phantom => report.phantom,
        Kind::Mismatched => report.mismatched,
    };
    assert!(counted > 0);
    assert!(
        !report.reconciled && report.verdict().starts_with("NOT reconciled: "),
        "{}",
        report.verdict()
    );
}

fn decoded(id: EventId, event: &Event) -> Decoded {
    let envelope = Envelope {
        id,
        event_type: event.event_type(),
        source: "/test".to_owned(),
        time: time(),
        traceparent: None,
    };
    Decoded { envelope, event: event.clone(), replay_of: None }
}
