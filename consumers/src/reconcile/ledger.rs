//! What the topics and the tables say about each order, side by side, in a small struct per order.
//!
//! Collects and judges nothing. A record told twice counts once; a second record of the same kind under another id
//! is remembered as such.

use std::collections::{HashMap, HashSet};

use schemas::inventory::ReleaseReason;
use schemas::shipments::ShipmentFailure;
use schemas::{Decoded, Event, EventId, EventType, OrderId, Sku, Topic};

use super::states::{PaymentState, ReservationState, ShipmentState, Status};
use super::supervision::Workflow;

/// Event types that happen at most once per order: all but those of `saga`, which come last in the catalogue.
pub(super) const ONCE: usize = 10;

/// One order.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) order_id: OrderId,
    /// Fingerprint of the first id seen of each event type; 0 when none was.
    events: [u64; ONCE],
    /// Event types that came under a second id, as a bit set.
    duplicated: u16,
    /// Event types whose line is in `order_events`, as a bit set.
    timeline: u16,
    pub(super) total_cents: i64,
    pub(super) captured_cents: i64,
    pub(super) refunded_cents: i64,
    pub(super) placed_units: u32,
    pub(super) reserved_units: u32,
    pub(super) released_units: u32,
    pub(super) release: Option<ReleaseReason>,
    pub(super) failure: Option<ShipmentFailure>,
    /// Supervision spoke of it.
    pub(super) saga: bool,
    /// It has events after the cut, so its rows may be ahead of what was read.
    pub(super) moving: bool,
    /// One of its records is set aside.
    pub(super) dead_lettered: bool,
    /// Its timeline has a line that no topic knows.
    pub(super) unknown_line: bool,
    pub(super) status: Option<Status>,
    pub(super) row_total_cents: Option<i64>,
    pub(super) reservation: Option<ReservationState>,
    pub(super) payment: Option<PaymentState>,
    pub(super) row_amount_cents: i64,
    pub(super) shipment: Option<ShipmentState>,
    pub(super) workflow: Option<Workflow>,
    /// It has more than one.
    pub(super) workflow_twice: bool,
}

/// A record that is no event of this pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) topic: Topic,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    orders: Vec<Facts>,
    index: HashMap<OrderId, u32>,
    /// Fingerprints of supervision's events, which may be many per order.
    saga: HashSet<u64>,
    /// Rows of orders that no topic spoke of are left out: only a part of the topics was read.
    windowed: bool,
    pub(super) records: u64,
    pub(super) dead_letter_records: u64,
    pub(super) repeats: [u64; EventType::ALL.len()],
    pub(super) timeline_lines: [u64; EventType::ALL.len()],
    /// Units reserved and not released, per SKU, as the topics tell.
    pub(super) held_units: HashMap<Sku, i64>,
    pub(super) unreadable: Vec<Place>,
    pub(super) set_aside: HashSet<Place>,
}

impl Facts {
    fn new(order_id: OrderId) -> Self {
        Self {
            order_id,
            events: [0; ONCE],
            duplicated: 0,
            timeline: 0,
            total_cents: 0,
            captured_cents: 0,
            refunded_cents: 0,
            placed_units: 0,
            reserved_units: 0,
            released_units: 0,
            release: None,
            failure: None,
            saga: false,
            moving: false,
            dead_lettered: false,
            unknown_line: false,
            status: None,
            row_total_cents: None,
            reservation: None,
            payment: None,
            row_amount_cents: 0,
            shipment: None,
            workflow: None,
            workflow_twice: false,
        }
    }

    /// Whether the topics hold an event of this type.
    pub(super) fn told(&self, event_type: EventType) -> bool {
        self.events.get(event_type as usize).is_some_and(|id| *id != 0)
    }

    /// Types that came under more than one id.
    pub(super) fn duplicated(&self) -> impl Iterator<Item = EventType> {
        let bits = self.duplicated;
        once_per_order().filter(move |event_type| bits & bit(*event_type) != 0)
    }

    /// Whether an event of this type is in the topics and missing in the timeline.
    pub(super) fn missing_in_timeline(&self) -> bool {
        once_per_order()
            .any(|event_type| self.told(event_type) && self.timeline & bit(event_type) == 0)
    }

    /// Whether any topic spoke of it.
    pub(super) fn in_topics(&self) -> bool {
        self.saga || once_per_order().any(|event_type| self.told(event_type))
    }
}

impl Ledger {
    /// A ledger for about `orders` orders.
    pub(super) fn with_capacity(orders: usize, windowed: bool) -> Self {
        Self {
            orders: Vec::with_capacity(orders),
            index: HashMap::with_capacity(orders),
            windowed,
            ..Self::default()
        }
    }

    /// Whether only a part of the topics was read.
    pub(super) fn is_windowed(&self) -> bool {
        self.windowed
    }

    /// Every order, in the order in which it was first heard of.
    pub(super) fn orders(&self) -> &[Facts] {
        &self.orders
    }

    /// A record before the cut.
    pub(super) fn event(&mut self, decoded: &Decoded) {
        self.records += 1;
        let event_type = decoded.envelope.event_type;
        let id = fingerprint(decoded.envelope.id);
        let order = self.heard_of(decoded.event.order_id());
        if event_type as usize >= ONCE {
            self.orders[order as usize].saga = true;
            if !self.saga.insert(id) {
                self.repeats[event_type as usize] += 1;
            }
            return;
        }
        let facts = &mut self.orders[order as usize];
        let known = &mut facts.events[event_type as usize];
        if *known == id {
            self.repeats[event_type as usize] += 1;
        } else if *known != 0 {
            facts.duplicated |= bit(event_type);
        } else {
            *known = id;
            self.first(order, &decoded.event);
        }
    }

    /// The first event of its type tells the details.
    fn first(&mut self, order: u32, event: &Event) {
        let facts = &mut self.orders[order as usize];
        match event {
            Event::OrderPlaced(placed) => {
                facts.total_cents = placed.total_cents;
                facts.placed_units = placed.items.iter().map(|item| item.quantity).sum();
            }
            Event::StockReserved(reserved) => {
                for item in &reserved.items {
                    facts.reserved_units += item.quantity;
                    *self.held_units.entry(item.sku.clone()).or_default() +=
                        i64::from(item.quantity);
                }
            }
            Event::StockReleased(released) => {
                facts.release = Some(released.reason);
                for item in &released.items {
                    facts.released_units += item.quantity;
                    *self.held_units.entry(item.sku.clone()).or_default() -=
                        i64::from(item.quantity);
                }
            }
            Event::PaymentCaptured(captured) => facts.captured_cents = captured.amount_cents,
            Event::PaymentRefunded(refunded) => facts.refunded_cents = refunded.amount_cents,
            Event::ShipmentFailed(failed) => facts.failure = Some(failed.reason),
            _ => {}
        }
    }

    /// A record after the cut: what its order's rows say may come from it.
    pub(super) fn late(&mut self, order_id: OrderId) {
        let order = self.heard_of(order_id);
        self.orders[order as usize].moving = true;
    }

    /// A record that cannot be read.
    pub(super) fn unreadable(&mut self, place: Place) {
        self.records += 1;
        self.unreadable.push(place);
    }

    pub(super) fn order_row(
        &mut self,
        order_id: OrderId,
        status: Status,
        total_cents: Option<i64>,
    ) {
        if let Some(facts) = self.row_of(order_id) {
            facts.status = Some(status);
            facts.row_total_cents = total_cents;
        }
    }

    pub(super) fn reservation_row(&mut self, order_id: OrderId, state: ReservationState) {
        if let Some(facts) = self.row_of(order_id) {
            facts.reservation = Some(state);
        }
    }

    pub(super) fn payment_row(
        &mut self,
        order_id: OrderId,
        state: PaymentState,
        amount_cents: i64,
    ) {
        if let Some(facts) = self.row_of(order_id) {
            facts.payment = Some(state);
            facts.row_amount_cents = amount_cents;
        }
    }

    pub(super) fn shipment_row(&mut self, order_id: OrderId, state: ShipmentState) {
        if let Some(facts) = self.row_of(order_id) {
            facts.shipment = Some(state);
        }
    }

    pub(super) fn workflow(&mut self, order_id: OrderId, stands: Workflow) {
        if let Some(facts) = self.row_of(order_id) {
            facts.workflow_twice |= facts.workflow.is_some();
            facts.workflow = Some(stands);
        }
    }

    pub(super) fn timeline_row(
        &mut self,
        order_id: OrderId,
        event_id: EventId,
        event_type: EventType,
    ) {
        let id = fingerprint(event_id);
        let saga = event_type as usize >= ONCE;
        let known_to_saga = saga && self.saga.contains(&id);
        let Some(facts) = self.row_of(order_id) else { return };
        if saga {
            facts.unknown_line |= !known_to_saga;
        } else if facts.events[event_type as usize] == id {
            facts.timeline |= bit(event_type);
        } else if facts.duplicated & bit(event_type) == 0 {
            facts.unknown_line = true;
        }
        self.timeline_lines[event_type as usize] += 1;
    }

    /// A record of this order waits for a person, or was discarded by one.
    pub(super) fn dead_letter(&mut self, order_id: OrderId) {
        // A dead letter is no row of an order: one of an order that nobody placed says nothing about orders.
        if let Some(order) = self.index.get(&order_id) {
            self.orders[*order as usize].dead_lettered = true;
        }
    }

    fn row_of(&mut self, order_id: OrderId) -> Option<&mut Facts> {
        if self.windowed && !self.index.contains_key(&order_id) {
            return None;
        }
        let order = self.heard_of(order_id);
        self.orders.get_mut(order as usize)
    }

    fn heard_of(&mut self, order_id: OrderId) -> u32 {
        *self.index.entry(order_id).or_insert_with(|| {
            self.orders.push(Facts::new(order_id));
            u32::try_from(self.orders.len() - 1)
                .expect("memory ends long before four billion orders")
        })
    }
}

fn once_per_order() -> impl Iterator<Item = EventType> {
    EventType::ALL.into_iter().take(ONCE)
}

fn bit(event_type: EventType) -> u16 {
    1 << event_type as u16
}

/// 64 bits of an id tell two ids apart well enough (ids are hashes) in half the memory. Never 0.
fn fingerprint(id: EventId) -> u64 {
    let (high, low) = id.0.as_u64_pair();
    (high ^ low.rotate_left(32)).max(1)
}
