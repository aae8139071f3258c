//! Compares what was read: every order against the rules, and the sums of the tables against the topics.

use std::collections::BTreeMap;

use schemas::{EventType, Topic};

use super::ledger::{Facts, Ledger};
use super::report::{EventRow, Finding, Report, StateRow};
use super::rules::{Broken, Kind, disagreements, duplicates, fate, gaps};
use super::states::{PaymentState, ReservationState, ShipmentState, Status};
use super::supervision::{self, Counts, Expected};
use super::tables::Snapshot;
use super::topics::Offsets;

/// What the audit knows beside the ledger.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Everything is applied and told: what is missing now is lost.
    pub(super) quiet: bool,
    /// Where the topics start.
    pub(super) starts: Offsets,
    pub(super) snapshot: Snapshot,
    /// Ids to remember per finding.
    pub(super) max_ids: usize,
    /// How many workflows there are and who has to have one; `None` when they were not looked at.
    pub(super) workflows: Option<(Counts, Expected)>,
}

/// Where an order stands.
enum Standing {
    Final(Status),
    /// On its way.
    Pending,
    /// Placed while the audit was reading.
    Arrived,
    /// Held up by a record that is set aside.
    DeadLettered,
    Lost,
    /// Only ever cancelled: its sender made the id up.
    NeverPlaced,
    /// Nobody placed it, as far as the topics were read.
    Outside,
}

/// Compares everything.
pub(super) fn audit(ledger: &Ledger, world: &World) -> Report {
    let mut audit = Audit { world, report: Report::default(), findings: BTreeMap::new() };
    for order in ledger.orders() {
        audit.order(order, ledger.is_windowed());
    }
    audit.stock();
    audit.status_counts();
    // Sums of topics and tables are of one moment only when nothing moves between them.
    if audit.report.is_settled() && !ledger.is_windowed() {
        audit.sums(ledger);
    }
    if world.quiet {
        audit.unreadable(ledger);
    }
    audit.describe(ledger);
    audit.finish()
}

struct Audit<'a> {
    world: &'a World,
    report: Report,
    findings: BTreeMap<(Kind, &'static str), Finding>,
}

impl Audit<'_> {
    fn order(&mut self, order: &Facts, windowed: bool) {
        let (standing, broken) = judge(order, self.world, windowed);
        let report = &mut self.report;
        match standing {
            Standing::Final(status) => {
                report.placed += 1;
                report.final_orders += 1;
                *report.outcomes.entry(status.as_str()).or_default() += 1;
            }
            Standing::Pending => {
                report.placed += 1;
                report.pending += 1;
            }
            Standing::Arrived => report.arrived += 1,
            Standing::DeadLettered => {
                report.placed += 1;
                report.dead_lettered += 1;
                remember(&mut report.dead_lettered_ids, self.world.max_ids, order.order_id);
            }
            Standing::Lost => {
                report.placed += 1;
                report.lost_orders += 1;
            }
            Standing::NeverPlaced => report.cancelled_unplaced += 1,
            Standing::Outside => {}
        }
        // An order counts once per kind, however many of its rules are broken.
        let mut kinds: Vec<Kind> = broken.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.into_iter().for_each(|kind| self.report.count(kind, 1));
        for (kind, what) in broken {
            self.find(kind, what, order.order_id);
        }
    }

    fn stock(&mut self) {
        for stock in &self.world.snapshot.stock {
            if stock.reserved != stock.in_reservations {
                self.found(
                    Kind::Mismatched,
                    "stock.reserved is not the sum over reservations",
                    &stock.sku,
                );
            }
            if stock.reserved > stock.on_hand {
                self.found(Kind::Mismatched, "more stock reserved than there is", &stock.sku);
            }
        }
    }

    fn status_counts(&mut self) {
        for (status, count) in &self.world.snapshot.statuses {
            if count.counted != count.rows {
                self.found(Kind::Mismatched, "order_status_counts differs from orders", status);
            }
        }
    }

    fn sums(&mut self, ledger: &Ledger) {
        let by_topic: i64 =
            ledger.orders().iter().map(|order| order.captured_cents - order.refunded_cents).sum();
        let captured =
            ledger.orders().iter().filter(|order| order.payment == Some(PaymentState::Captured));
        let by_table: i64 = captured.map(|order| order.row_amount_cents).sum();
        if by_topic != by_table {
            let difference = format!("{by_topic} by topic, {by_table} by table, in minor units");
            self.found(Kind::Mismatched, "money captured and not refunded", difference);
        }
        let stock = &self.world.snapshot.stock;
        let reserved: BTreeMap<&str, i64> =
            stock.iter().map(|s| (s.sku.as_str(), s.reserved)).collect();
        for (sku, held) in &ledger.held_units {
            if reserved.get(sku.as_str()).copied().unwrap_or(0) != *held {
                self.found(Kind::Mismatched, "stock.reserved is not what the topics tell", sku);
            }
        }
        for (sku, _) in reserved.into_iter().filter(|(_, units)| *units != 0) {
            if !ledger.held_units.keys().any(|held| held.as_str() == sku) {
                self.found(Kind::Mismatched, "stock.reserved is not what the topics tell", sku);
            }
        }
        self.report.captured_cents = by_topic;
    }

    /// A record that no stage can apply is set aside by those who met it, never dropped.
    fn unreadable(&mut self, ledger: &Ledger) {
        for place in ledger.unreadable.iter().filter(|place| !ledger.set_aside.contains(place)) {
            let place = format!("{}/{}@{}", place.topic.name(), place.partition, place.offset);
            self.found(Kind::Lost, "unreadable record that is not in dead_letters", place);
        }
    }

    /// What was looked at, for the person who reads the report.
    fn describe(&mut self, ledger: &Ledger) {
        let report = &mut self.report;
        report.quiet = self.world.quiet;
        report.workflows = self.world.workflows.map(|(counts, _)| counts);
        report.windowed = ledger.is_windowed();
        report.records = ledger.records;
        report.unreadable = ledger.unreadable.len() as u64;
        report.dead_letter_records = ledger.dead_letter_records;
        report.dead_letters = self.world.snapshot.dead_letters.clone();
        if !ledger.is_windowed() {
            let starts = self.world.starts.iter().filter(|(_, start)| **start > 0);
            report.retention = starts
                .map(|((topic, partition), start)| {
                    format!("{}/{partition} starts at offset {start}", topic.name())
                })
                .collect();
        }
        let count = |event_type| {
            ledger.orders().iter().filter(|order| order.told(event_type)).count() as u64
        };
        report.events = EventType::ALL
            .into_iter()
            .filter(|event_type| event_type.topic() != Topic::Saga)
            .map(|event_type| EventRow {
                event: event_type.as_str(),
                orders: count(event_type),
                repeats: ledger.repeats[event_type as usize],
                timeline: ledger.timeline_lines[event_type as usize],
            })
            .collect();
        let orders = ledger.orders();
        let mut rows = Vec::new();
        rows.extend(count_states("orders", Status::ALL, orders, Status::as_str, |o| o.status));
        let reservations = ReservationState::as_str;
        rows.extend(count_states(
            "reservations",
            ReservationState::ALL,
            orders,
            reservations,
            |o| o.reservation,
        ));
        rows.extend(count_states(
            "payments",
            PaymentState::ALL,
            orders,
            PaymentState::as_str,
            |o| o.payment,
        ));
        rows.extend(count_states(
            "shipments",
            ShipmentState::ALL,
            orders,
            ShipmentState::as_str,
            |o| o.shipment,
        ));
        report.rows = rows;
    }

    /// A finding that is not about an order.
    fn found(&mut self, kind: Kind, what: &'static str, id: impl ToString) {
        self.report.count(kind, 1);
        self.find(kind, what, id);
    }

    fn find(&mut self, kind: Kind, what: &'static str, id: impl ToString) {
        let finding = self.findings.entry((kind, what)).or_insert_with(|| Finding::new(kind, what));
        finding.count += 1;
        remember(&mut finding.ids, self.world.max_ids, id);
    }

    fn finish(self) -> Report {
        let mut report = Report { findings: self.findings.into_values().collect(), ..self.report };
        report.reconciled = report.is_reconciled();
        report
    }
}

/// Where an order stands, and which rules it breaks.
fn judge(order: &Facts, world: &World, windowed: bool) -> (Standing, Vec<Broken>) {
    let quiet = world.quiet;
    let mut broken: Vec<Broken> = duplicates(order).collect();
    if order.moving {
        let placed = order.told(EventType::OrderPlaced);
        return (if placed { Standing::Pending } else { Standing::Arrived }, broken);
    }
    if !order.told(EventType::OrderPlaced) {
        // It may have been placed before the window.
        if windowed {
            return (Standing::Outside, Vec::new());
        }
        if order.told(EventType::CancelRequested) {
            return (Standing::NeverPlaced, broken);
        }
        let what = if order.in_topics() {
            "event of an order that was never placed"
        } else {
            "row of an order that was never placed"
        };
        broken.push((Kind::Phantom, what));
        return (Standing::Outside, broken);
    }
    broken.extend(disagreements(order));
    broken.extend(supervision::disagreements(order));
    let mut gaps = gaps(order);
    if let Some((_, expected)) = world.workflows {
        gaps.extend(supervision::gaps(order, expected));
    }
    let incomplete = gaps.iter().chain(&broken).any(|(kind, _)| *kind == Kind::Lost);
    let standing = match fate(order) {
        _ if !gaps.is_empty() && order.dead_lettered => return (Standing::DeadLettered, broken),
        _ if !gaps.is_empty() && !quiet => return (Standing::Pending, broken),
        Some(status) if !incomplete => Standing::Final(status),
        _ => Standing::Lost,
    };
    broken.extend(gaps);
    (standing, broken)
}

fn remember(ids: &mut Vec<String>, max_ids: usize, id: impl ToString) {
    if ids.len() < max_ids {
        ids.push(id.to_string());
    }
}

fn count_states<S: Copy + PartialEq>(
    table: &'static str,
    states: &'static [S],
    orders: &[Facts],
    name: impl Fn(S) -> &'static str,
    state_of: impl Fn(&Facts) -> Option<S>,
) -> Vec<StateRow> {
    let count = |state| orders.iter().filter(|order| state_of(order) == Some(state)).count() as u64;
    states.iter().map(|&state| StateRow { table, state: name(state), rows: count(state) }).collect()
}
