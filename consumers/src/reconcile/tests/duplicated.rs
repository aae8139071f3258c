//! What happened twice, or together with its opposite.

use schemas::shipments::ShipmentFailure;
use schemas::{Event, EventId, OrderId};
use uuid::Uuid;

use super::scene::{Scene, assert_found, report};
use super::tale::{Tale, arranged, declined, failed, rejected};
use crate::reconcile::rules::Kind;

#[test]
fn an_effect_under_two_ids_is_duplicated() {
    for (tale, what) in [
        (Tale::shipped(1), "payment-captured under different ids"),
        (Tale::shipped(1), "stock-reserved under different ids"),
        (Tale::shipped(1), "order-placed under different ids"),
        (Tale::shipped(1), "shipment-arranged under different ids"),
        (Tale::refused(1), "payment-refunded under different ids"),
        (Tale::declined(1), "stock-released under different ids"),
    ] {
        let mut tale = tale;
        let (_, event) = tale
            .events
            .iter()
            .find(|(_, event)| {
                event.event_type().as_str().contains(what.split(' ').next().unwrap())
            })
            .unwrap()
            .clone();
        tale.events.push((EventId(Uuid::from_u128(77)), event));

        for quiet in [true, false] {
            let report = Scene { quiet, ..Scene::of([tale.clone()]) }.report();

            assert_found(&report, Kind::Duplicated, what);
            assert_eq!(report.duplicated, 1);
        }
    }
}

#[test]
fn an_effect_and_its_opposite_are_duplicated() {
    let with = |mut tale: Tale, event: fn(OrderId) -> Event| {
        tale.tell(event(tale.order));
        report([tale])
    };

    let both = with(Tale::shipped(1), rejected);
    assert_found(&both, Kind::Duplicated, "stock both reserved and rejected");
    assert_found(&both, Kind::Duplicated, "rejected, yet shipped");
    assert_eq!(both.duplicated, 1, "one order, however many rules");
    assert_found(
        &with(Tale::shipped(1), declined),
        Kind::Duplicated,
        "payment both captured and declined",
    );
    let cancelled = |order| failed(order, ShipmentFailure::Cancelled);
    assert_found(
        &with(Tale::shipped(1), cancelled),
        Kind::Duplicated,
        "shipment both arranged and failed",
    );
    assert_found(
        &with(Tale::refused(1), arranged),
        Kind::Duplicated,
        "shipped, yet its stock released",
    );
    assert_found(&with(Tale::refused(1), arranged), Kind::Duplicated, "shipped, yet refunded");
}
