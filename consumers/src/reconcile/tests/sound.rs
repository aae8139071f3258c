//! Quiet where all is well, or not yet to be judged.

use schemas::EventType;

use super::scene::{Scene, report};
use super::tale::{TOTAL, Tale};

fn one_of_each() -> Vec<Tale> {
    vec![
        Tale::shipped(1),
        Tale::rejected(2),
        Tale::declined(3),
        Tale::refused(4),
        Tale::cancelled(5),
        Tale::shipped_despite_cancel(6),
    ]
}

#[test]
fn orders_that_ended_in_every_way_there_is_are_reconciled() {
    let report = report(one_of_each());

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.verdict(), "reconciled: placed=6 final=6 lost=0 duplicated=0");
    assert_eq!(report.text().lines().last(), Some(report.verdict().as_str()));
    assert_eq!(report.outcomes["shipped"], 2);
    assert_eq!(report.captured_cents, 2 * TOTAL);
}

#[test]
fn nothing_placed_is_reconciled() {
    assert_eq!(report([]).verdict(), "reconciled: placed=0 final=0 lost=0 duplicated=0");
}

#[test]
fn an_event_told_again_is_a_repeat_and_no_duplicate() {
    let mut tale = Tale::shipped(1);
    let again = tale.events.clone();
    tale.events.extend(again);

    let report = report([tale]);

    assert!(report.reconciled, "{:?}", report.findings);
    assert_eq!(report.events.iter().map(|row| row.repeats).sum::<u64>(), 4);
}

#[test]
fn what_is_still_on_its_way_is_pending() {
    let unfinished = [Tale::placed(1), Tale::reserved(2), Tale::paid(3), Tale::shipped(4)];

    let report = Scene { quiet: false, ..Scene::of(unfinished) }.report();

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.placed, report.final_orders, report.pending), (4, 1, 3));
    assert!(!report.reconciled);
}

#[test]
fn an_order_with_events_after_the_cut_is_not_judged() {
    let mut tale = Tale::shipped(1);
    tale.untell(EventType::ShipmentArranged);
    tale.untell(EventType::PaymentCaptured);
    tale.moving = true;

    let report = report([tale]);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.placed, report.pending), (1, 1));
}

#[test]
fn an_order_that_arrived_after_the_cut_belongs_to_the_next_audit() {
    let mut tale = Tale::shipped(1);
    tale.events.clear();
    tale.moving = true;

    let report = report([tale, Tale::shipped(2)]);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.placed, report.final_orders, report.arrived), (1, 1, 1));
    assert!(!report.reconciled, "sums could not be compared");
}

#[test]
fn an_order_behind_a_dead_letter_is_neither_lost_nor_final() {
    let mut held_up = Tale::placed(1);
    held_up.dead_lettered = true;
    let mut ended = Tale::shipped(2);
    ended.dead_lettered = true;

    let report = report([held_up, ended]);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(
        (report.placed, report.final_orders, report.lost, report.dead_lettered),
        (2, 1, 0, 1)
    );
    assert_eq!(report.dead_lettered_ids.len(), 1);
    assert!(!report.reconciled);
}

#[test]
fn in_a_window_orders_from_before_are_left_out() {
    let mut before = Tale::shipped(1);
    before.untell(EventType::OrderPlaced);
    before.untell(EventType::StockReserved);
    let mut long_before = Tale::shipped(2);
    long_before.events.clear();

    let report =
        Scene { windowed: true, ..Scene::of([before, long_before, Tale::shipped(3)]) }.report();

    assert_eq!(report.verdict(), "reconciled: placed=1 final=1 lost=0 duplicated=0");
}
