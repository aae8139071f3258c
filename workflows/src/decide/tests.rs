//! Orders played through to their end, in every order that topics may race.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::facts::Fact;

const DEADLINES: Deadlines = Deadlines {
    reservation_ms: 600_000,
    payment_ms: 900_000,
    shipping_ms: 3_600_000,
    compensation_ms: 120_000,
};

const START_MS: u64 = 1_800_000_000_000;

fn fact(kind: FactKind, reason: Option<&str>) -> Fact {
    let id = Uuid::from_u128(kind as u128 + 1);
    Fact { id, kind, reason: reason.map(str::to_owned) }
}

/// Every way an order can end, with all that is told about it.
fn ways() -> Vec<(Status, Vec<Fact>)> {
    use FactKind::*;
    let plain = |kinds: &[FactKind]| kinds.iter().map(|kind| fact(*kind, None)).collect::<Vec<_>>();
    let with = |kinds: &[FactKind], more: &[(FactKind, &str)]| {
        let more = more.iter().map(|(kind, reason)| fact(*kind, Some(reason)));
        plain(kinds).into_iter().chain(more).collect::<Vec<_>>()
    };
    let cancelled = [(ShipmentFailed, "cancelled"), (StockReleased, "cancelled")];
    vec![
        (Status::Shipped, plain(&[OrderPlaced, StockReserved, PaymentCaptured, ShipmentArranged])),
        (
            Status::Shipped,
            plain(&[
                OrderPlaced,
                StockReserved,
                PaymentCaptured,
                CancelRequested,
                ShipmentArranged,
            ]),
        ),
        (Status::Rejected, with(&[OrderPlaced], &[(StockRejected, "insufficient_stock")])),
        (
            Status::Declined,
            with(
                &[OrderPlaced, StockReserved],
                &[(PaymentDeclined, "card"), (StockReleased, "payment_declined")],
            ),
        ),
        (Status::Cancelled, with(&[OrderPlaced, CancelRequested], &cancelled)),
        (Status::Cancelled, with(&[OrderPlaced, CancelRequested, StockReserved], &cancelled)),
        (
            Status::Cancelled,
            with(
                &[OrderPlaced, StockReserved, PaymentCaptured, CancelRequested, PaymentRefunded],
                &cancelled,
            ),
        ),
        (
            Status::Cancelled,
            with(
                &[OrderPlaced, StockReserved, PaymentCaptured, PaymentRefunded],
                &[(ShipmentFailed, "carrier_refused"), (StockReleased, "shipment_failed")],
            ),
        ),
    ]
}

/// A workflow without Temporal.
struct Play {
    facts: Facts,
    progress: Progress,
    now_ms: u64,
    published: Vec<SagaRequest>,
}

impl Play {
    fn new() -> Self {
        let progress = Progress { started_ms: START_MS, ..Progress::default() };
        Self { facts: Facts::default(), progress, now_ms: START_MS, published: Vec::new() }
    }

    fn hear(&mut self, kind: FactKind, reason: Option<&str>) -> &mut Self {
        self.facts.join(&fact(kind, reason));
        self
    }

    /// Acts until there is something to wait for; checks what must hold of every act.
    fn settle(&mut self) -> Step {
        for _ in 0..10 {
            self.progress.hear(&self.facts, self.now_ms);
            let step = next(&self.facts, &self.progress, &DEADLINES, self.now_ms);
            assert_eq!(step, next(&self.facts, &self.progress, &DEADLINES, self.now_ms));
            match step {
                Step::Look => self.progress.looked(self.now_ms),
                Step::Publish(request) => self.publish(request),
                Step::Wait { until_ms, .. } => {
                    assert!(until_ms > self.now_ms, "a wait that is over");
                    return step;
                }
                Step::Close(_) => return step,
            }
        }
        panic!("it acts without end: {:?}", self.published);
    }

    fn publish(&mut self, request: SagaRequest) {
        let verdict =
            self.facts.has(FactKind::ShipmentFailed) || self.facts.has(FactKind::PaymentDeclined);
        match request.kind {
            RequestKind::OrderCancelled => {
                assert!(!verdict, "asked for a verdict that is known");
                assert_eq!(self.progress.looked_ms, Some(self.now_ms), "asked without a look");
            }
            RequestKind::StockRelease => assert!(verdict, "released before a verdict"),
            RequestKind::Refund => {
                assert!(self.facts.has(FactKind::ShipmentFailed), "refunded before a verdict");
                assert!(self.facts.has(FactKind::PaymentCaptured), "refunded what was not paid");
            }
        }
        if let Some(first) = self.published.iter().find(|first| first.kind == request.kind) {
            assert_eq!(*first, request, "a repeat that differs");
        }
        self.published.push(request);
        self.progress.published(request, self.now_ms);
    }

    /// Lets the time come that is waited for.
    fn wait(&mut self) -> &mut Self {
        if let Step::Wait { until_ms, .. } = self.settle() {
            self.now_ms = until_ms;
        }
        self
    }

    fn kinds(&self) -> Vec<RequestKind> {
        self.published.iter().map(|request| request.kind).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn facts_in_any_order_with_repeats_and_delays_end_every_order_the_same_way(
        way in 0..8_usize,
        keys in prop::collection::vec((any::<u64>(), any::<u64>(), 0..4_usize), 7),
    ) {
        let (expected, told) = ways().remove(way);
        let mut arrivals: Vec<_> = told.iter().zip(&keys)
            .flat_map(|(fact, (first, again, delays))| [(first, fact, delays), (again, fact, &0)])
            .collect();
        arrivals.sort_by_key(|(key, ..)| *key);
        let mut play = Play::new();

        let mut end = None;
        for (_, fact, delays) in arrivals {
            play.facts.join(fact);
            for _ in 0..*delays {
                play.wait();
            }
            if let Step::Close(status) = play.settle() {
                end = Some(status);
                break;
            }
        }

        prop_assert_eq!(end, Some(expected));
    }

    #[test]
    fn joining_is_the_same_in_any_order_any_number_of_times(
        ids in prop::collection::vec((0..200_u128, 0..10_usize, prop::option::of("[ab]")), 0..120),
        shuffle in any::<u64>(),
    ) {
        let facts: Vec<_> = ids.into_iter().map(|(id, kind, reason)| {
            let kind = ALL[kind];
            Fact { id: Uuid::from_u128(id), kind, reason }
        }).collect();
        let mut shuffled: Vec<_> = facts.iter().chain(&facts).enumerate().collect();
        shuffled.sort_by_key(|(at, _)| (*at as u64).wrapping_mul(shuffle | 1));
        let (mut one, mut other) = (Facts::default(), Facts::default());

        for fact in &facts {
            one.join(fact);
        }
        for (_, fact) in shuffled {
            other.join(fact);
        }

        prop_assert_eq!(&one, &other);
        prop_assert!(one.seen() <= Facts::SEEN_LIMIT);
        for fact in &facts {
            prop_assert!(!one.join(fact), "a repeat told something new");
        }
    }
}

const ALL: [FactKind; 10] = [
    FactKind::OrderPlaced,
    FactKind::CancelRequested,
    FactKind::StockReserved,
    FactKind::StockRejected,
    FactKind::StockReleased,
    FactKind::PaymentCaptured,
    FactKind::PaymentDeclined,
    FactKind::PaymentRefunded,
    FactKind::ShipmentArranged,
    FactKind::ShipmentFailed,
];

#[test]
fn a_quick_order_needs_nothing() {
    for (status, told) in ways() {
        let mut play = Play::new();
        let mut end = Step::Look;
        for fact in &told {
            play.facts.join(fact);
            end = next(&play.facts, &play.progress, &DEADLINES, START_MS);
        }

        assert_eq!(end, Step::Close(status));
    }
}

#[test]
fn an_overdue_payment_has_the_order_cancelled_released_and_refunded_once() {
    let mut play = Play::new();
    play.hear(FactKind::OrderPlaced, None).hear(FactKind::StockReserved, None);
    assert_eq!(
        play.settle(),
        Step::Wait { awaited: Awaited::Payment, until_ms: START_MS + DEADLINES.payment_ms }
    );

    play.wait().settle();
    assert_eq!(play.kinds(), [RequestKind::OrderCancelled]);
    assert_eq!(play.published[0].reason, SagaReason::DeadlineExceeded);

    // The payment came after all, and the shipping stage gave the order up.
    play.hear(FactKind::PaymentCaptured, None).hear(FactKind::ShipmentFailed, Some("cancelled"));
    play.settle();
    let expected = [RequestKind::OrderCancelled, RequestKind::StockRelease, RequestKind::Refund];
    assert_eq!(play.kinds(), expected);
    assert_eq!(play.published[1].reason, SagaReason::DeadlineExceeded);

    play.hear(FactKind::StockReleased, Some("cancelled"));
    assert!(matches!(play.settle(), Step::Wait { awaited: Awaited::Refund, .. }));
    play.hear(FactKind::PaymentRefunded, None);
    assert_eq!(play.settle(), Step::Close(Status::Cancelled));
    assert_eq!(play.kinds(), expected);
}

#[test]
fn an_order_that_turns_out_shipped_at_its_deadline_is_left_alone() {
    let mut play = Play::new();
    play.hear(FactKind::OrderPlaced, None);
    let Step::Wait { until_ms, .. } = play.settle() else { panic!("nothing is due") };
    play.now_ms = until_ms;
    assert_eq!(next(&play.facts, &play.progress, &DEADLINES, until_ms), Step::Look);

    play.progress.looked(until_ms);
    play.hear(FactKind::ShipmentArranged, None);

    assert_eq!(play.settle(), Step::Close(Status::Shipped));
    assert!(play.published.is_empty());
}

#[test]
fn what_is_not_confirmed_is_asked_for_again_in_growing_bounded_waits() {
    let mut play = Play::new();
    play.hear(FactKind::PaymentDeclined, None);
    play.settle();
    let mut waits = Vec::new();

    for _ in 0..40 {
        let before = play.now_ms;
        play.wait().settle();
        waits.push(play.now_ms - before);
    }

    assert_eq!(play.kinds(), [RequestKind::StockRelease; 41]);
    assert_eq!(waits[..3], [120_000, 240_000, 480_000]);
    assert_eq!(waits[39], REPEAT_LIMIT_MS);
}

#[test]
fn a_cancellation_waits_for_the_shipping_stage_before_anything_is_asked_for() {
    let mut play = Play::new();
    play.hear(FactKind::OrderPlaced, None).hear(FactKind::CancelRequested, None);

    let until_ms = START_MS + DEADLINES.compensation_ms;
    assert_eq!(play.settle(), Step::Wait { awaited: Awaited::Verdict, until_ms });
    assert!(play.published.is_empty());

    play.wait().settle();
    assert_eq!(play.published[0].reason, SagaReason::Cancelled);
}

#[test]
fn stock_of_a_declined_order_is_released_because_it_was_declined() {
    let mut play = Play::new();
    play.hear(FactKind::OrderPlaced, None).hear(FactKind::StockReserved, None);
    play.hear(FactKind::PaymentDeclined, Some("card")).settle();

    assert_eq!(play.kinds(), [RequestKind::StockRelease]);
    assert_eq!(play.published[0].reason, SagaReason::PaymentDeclined);
}

#[test]
fn stock_that_came_back_without_a_verdict_has_one_asked_for() {
    let mut play = Play::new();
    play.hear(FactKind::OrderPlaced, None).hear(FactKind::StockReserved, None);
    play.hear(FactKind::StockReleased, Some("cancelled"));

    let until_ms = START_MS + DEADLINES.compensation_ms;
    assert_eq!(play.settle(), Step::Wait { awaited: Awaited::Verdict, until_ms });
}

#[test]
fn a_shipment_is_due_from_when_the_payment_was_heard_of() {
    let mut play = Play::new();
    play.hear(FactKind::OrderPlaced, None).hear(FactKind::StockReserved, None).settle();

    play.now_ms += 60_000;
    play.hear(FactKind::PaymentCaptured, None);

    let until_ms = START_MS + 60_000 + DEADLINES.shipping_ms;
    assert_eq!(play.settle(), Step::Wait { awaited: Awaited::Shipment, until_ms });
}

#[test]
fn another_event_that_says_what_is_known_is_still_news_once() {
    let mut facts = Facts::default();
    facts.join(&fact(FactKind::OrderPlaced, None));
    let another = Fact { id: Uuid::from_u128(1000), ..fact(FactKind::OrderPlaced, None) };

    assert!(facts.join(&another));
    assert!(!facts.join(&another));
}

#[test]
fn the_status_is_the_one_of_the_generated_column() {
    let all = |kinds: &[FactKind], release: Option<&str>| {
        let mut facts = Facts::default();
        for kind in kinds {
            facts.join(&fact(*kind, None));
        }
        if release.is_some() {
            facts.join(&fact(FactKind::StockReleased, release));
        }
        facts.status()
    };
    use FactKind::*;

    assert_eq!(all(&ALL, None), Status::Shipped);
    assert_eq!(all(&[StockRejected, PaymentCaptured], Some("payment_declined")), Status::Rejected);
    assert_eq!(all(&[PaymentCaptured], Some("payment_declined")), Status::Declined);
    assert_eq!(all(&[PaymentCaptured], Some("cancelled")), Status::Cancelled);
    assert_eq!(all(&[StockReserved, PaymentDeclined], None), Status::Reserved);
    assert_eq!(all(&[StockReserved, PaymentCaptured], None), Status::Paid);
    assert_eq!(all(&[], None), Status::Placed);
}
