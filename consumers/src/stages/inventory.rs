//! Reserves stock for orders, all items or none, and frees it when an order will not ship.
//!
//! Owns `stock` and `reservations`. Emits stock-reserved, stock-rejected, stock-released. Rejects `idempotency_conflict`:
//! another order under an id that is taken. How an unshipped order ended is decided here, by the first release.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::inventory::{
    ReleaseReason, ReservedItem, StockRejected, StockRejection, StockReleased, StockReserved,
};
use schemas::orders::OrderPlaced;
use schemas::saga::SagaReason;
use schemas::shipments::ShipmentFailure;
use schemas::{Event, EventType, OrderId, Sku, Topic};
use uuid::Uuid;

use crate::config::StageConfig;
use crate::stage::{Effect, Fault, Outcome, Received, Rejection, Stage};
use crate::store::reservations::{self, Wanted};
use crate::store::session::Session;
use crate::store::stock;

/// The stage.
pub(crate) struct Inventory;

impl Stage for Inventory {
    const NAME: &'static str = "inventory";
    const INPUTS: &'static [EventType] = &[
        EventType::OrderPlaced,
        EventType::PaymentDeclined,
        EventType::ShipmentFailed,
        EventType::StockReleaseRequested,
    ];
    const OUTPUT: Option<Topic> = Some(Topic::Inventory);
    type Prepared = ();

    fn from_config(_: &StageConfig) -> anyhow::Result<Self> {
        Ok(Self)
    }

    async fn prepare(&self, _: &mut Session<'_>, _: &[Received]) -> Result<(), Fault> {
        Ok(())
    }

    async fn apply(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
        (): &(),
    ) -> Result<Outcome, Fault> {
        let mut outcome = Outcome::default();
        reserve(db, events, &mut outcome).await?;
        release(db, events, &mut outcome).await?;
        Ok(outcome)
    }
}

/// An order and the number of its event.
type Placed<'a> = (usize, &'a OrderPlaced);

async fn reserve(
    db: &mut Session<'_>,
    events: &[Received],
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let placed: Vec<Placed<'_>> = events
        .iter()
        .enumerate()
        .filter_map(|(number, received)| match &received.event {
            Event::OrderPlaced(order) => Some((number, order)),
            _ => None,
        })
        .collect();
    if placed.is_empty() {
        return Ok(());
    }
    let (first, repeated) = split_repeats(&placed);
    let wanted: Vec<Wanted<'_>> = first.iter().map(|(_, order)| want(order)).collect();
    // Written as reserved before the stock is looked at, so that the lock on a hot SKU is held as briefly as can be:
    // from the look to the commit, with hardly a statement between.
    let new = reservations::insert_reserved(db, &wanted).await?;
    refuse_conflicts(db, &first, &repeated, &new).await?;
    let fresh: Vec<Placed<'_>> =
        first.into_iter().filter(|(_, order)| new.contains(&order.order_id)).collect();
    outcome.duplicates += placed.len() - fresh.len();

    let skus: Vec<&str> = distinct_skus(&fresh);
    let mut available = stock::lock_available(db, &skus).await?;
    let Decisions { reserved, rejected, taken } = decide(&fresh, &mut available);
    if !rejected.is_empty() {
        let orders: Vec<Uuid> = rejected.iter().map(|(_, order, _, _)| order.order_id.0).collect();
        let reasons: Vec<&str> =
            rejected.iter().map(|(_, _, reason, _)| rejection_text(*reason)).collect();
        reservations::reject(db, &orders, &reasons).await?;
    }
    if !taken.is_empty() {
        stock::add_reserved(db, &taken).await?;
    }
    outcome.effects.extend(
        reserved.into_iter().map(|(cause, order)| Effect { event: reserved_event(order), cause }),
    );
    outcome.effects.extend(rejected.into_iter().map(|(cause, order, reason, sku)| {
        let event = Event::StockRejected(StockRejected { order_id: order.order_id, reason, sku });
        Effect { event, cause }
    }));
    outcome.effects.sort_by_key(|effect| effect.cause);
    Ok(())
}

/// What was decided on a batch of new orders.
struct Decisions<'a> {
    reserved: Vec<Placed<'a>>,
    rejected: Vec<(usize, &'a OrderPlaced, StockRejection, Sku)>,
    /// Per SKU, what the reserved orders take together.
    taken: BTreeMap<String, i64>,
}

/// First come, first served, all items of an order or none. `available` is used up as it goes.
fn decide<'a>(orders: &[Placed<'a>], available: &mut HashMap<String, i64>) -> Decisions<'a> {
    let mut decisions =
        Decisions { reserved: Vec::new(), rejected: Vec::new(), taken: BTreeMap::new() };
    for &(number, order) in orders {
        let mut needs: BTreeMap<&Sku, i64> = BTreeMap::new();
        for item in &order.items {
            *needs.entry(&item.sku).or_default() += i64::from(item.quantity);
        }
        let lacking = needs.iter().find_map(|(sku, need)| match available.get(sku.as_str()) {
            None => Some((StockRejection::UnknownSku, (*sku).clone())),
            Some(free) if free < need => Some((StockRejection::InsufficientStock, (*sku).clone())),
            Some(_) => None,
        });
        if let Some((reason, sku)) = lacking {
            decisions.rejected.push((number, order, reason, sku));
            continue;
        }
        for (sku, need) in needs {
            *available.get_mut(sku.as_str()).expect("found above") -= need;
            *decisions.taken.entry(sku.as_str().to_owned()).or_default() += need;
        }
        decisions.reserved.push((number, order));
    }
    decisions
}

async fn release(
    db: &mut Session<'_>,
    events: &[Received],
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let mut causes: BTreeMap<OrderId, (usize, ReleaseReason)> = BTreeMap::new();
    let mut given_up = 0;
    for (number, received) in events.iter().enumerate() {
        let (order, reason) = match &received.event {
            Event::PaymentDeclined(declined) => (declined.order_id, ReleaseReason::PaymentDeclined),
            Event::ShipmentFailed(failed) => match failed.reason {
                ShipmentFailure::Cancelled => (failed.order_id, ReleaseReason::Cancelled),
                ShipmentFailure::CarrierRefused => (failed.order_id, ReleaseReason::ShipmentFailed),
            },
            Event::StockReleaseRequested(asked) => (asked.order_id, release_reason(asked.reason)),
            _ => continue,
        };
        given_up += 1;
        causes.entry(order).or_insert((number, reason));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let orders: Vec<Uuid> = causes.keys().map(|order| order.0).collect();
    let reasons: Vec<&str> = causes.values().map(|(_, reason)| reason.as_str()).collect();
    let released = reservations::release(db, &orders, &reasons).await?;
    outcome.duplicates += given_up - released.len();

    let mut freed: BTreeMap<String, i64> = BTreeMap::new();
    for order in released {
        let (cause, reason) = causes[&order.order_id];
        let mut items = Vec::with_capacity(order.skus.len());
        for (sku, quantity) in order.skus.into_iter().zip(order.quantities) {
            *freed.entry(sku.clone()).or_default() -= i64::from(quantity);
            let sku = Sku::try_from(sku).map_err(|error| Fault::Transient(error.into()))?;
            items.push(ReservedItem { sku, quantity: quantity.unsigned_abs() });
        }
        let event = Event::StockReleased(StockReleased { order_id: order.order_id, reason, items });
        outcome.effects.push(Effect { event, cause });
    }
    outcome.effects.sort_by_key(|effect| effect.cause);
    if !freed.is_empty() {
        let skus: Vec<&str> = freed.keys().map(String::as_str).collect();
        stock::lock_available(db, &skus).await?;
        stock::add_reserved(db, &freed).await?;
    }
    Ok(())
}

/// Separates the first event of each order from those that repeat it within the batch.
fn split_repeats<'a>(placed: &[Placed<'a>]) -> (Vec<Placed<'a>>, Vec<Placed<'a>>) {
    let mut seen = HashSet::with_capacity(placed.len());
    placed.iter().copied().partition(|(_, order)| seen.insert(order.order_id))
}

/// A repeat tells the same order again; another order under the same id is an error of its sender.
async fn refuse_conflicts(
    db: &mut Session<'_>,
    first: &[Placed<'_>],
    repeated: &[Placed<'_>],
    new: &HashSet<OrderId>,
) -> Result<(), Fault> {
    let known: Vec<Placed<'_>> = first
        .iter()
        .filter(|(_, order)| !new.contains(&order.order_id))
        .chain(repeated)
        .copied()
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = known.iter().map(|(_, order)| order.order_id.0).collect();
    let digests = reservations::digests(db, &ids).await?;
    let conflicts: Vec<Rejection> = known
        .iter()
        .filter(|(_, order)| {
            let digest = digests.get(&order.order_id).and_then(Option::as_deref);
            digest.is_some_and(|digest| digest != order.fingerprint().0)
        })
        .map(|(event, _)| Rejection {
            event: *event,
            code: "idempotency_conflict",
            detail: "another order was placed under this id before".to_owned(),
        })
        .collect();
    if conflicts.is_empty() { Ok(()) } else { Err(Fault::Rejected(conflicts)) }
}

fn want(order: &OrderPlaced) -> Wanted<'_> {
    Wanted {
        order_id: order.order_id,
        digest: order.fingerprint().0,
        skus: order.items.iter().map(|item| item.sku.as_str()).collect(),
        quantities: order.items.iter().map(|item| item.quantity.cast_signed()).collect(),
    }
}

fn distinct_skus<'a>(orders: &[Placed<'a>]) -> Vec<&'a str> {
    let mut skus: Vec<&str> = orders
        .iter()
        .flat_map(|(_, order)| order.items.iter().map(|item| item.sku.as_str()))
        .collect();
    skus.sort_unstable();
    skus.dedup();
    skus
}

fn reserved_event(order: &OrderPlaced) -> Event {
    let items = order
        .items
        .iter()
        .map(|item| ReservedItem { sku: item.sku.clone(), quantity: item.quantity });
    Event::StockReserved(StockReserved {
        order_id: order.order_id,
        customer_id: order.customer_id.clone(),
        currency: order.currency,
        total_cents: order.total_cents,
        items: items.collect(),
    })
}

/// Supervision names what it saw; a deadline ends an order like a cancellation does.
const fn release_reason(reason: SagaReason) -> ReleaseReason {
    match reason {
        SagaReason::PaymentDeclined => ReleaseReason::PaymentDeclined,
        SagaReason::ShipmentFailed => ReleaseReason::ShipmentFailed,
        SagaReason::Cancelled | SagaReason::DeadlineExceeded => ReleaseReason::Cancelled,
    }
}

const fn rejection_text(reason: StockRejection) -> &'static str {
    match reason {
        StockRejection::InsufficientStock => "insufficient_stock",
        StockRejection::UnknownSku => "unknown_sku",
    }
}

#[cfg(test)]
mod tests {
    use schemas::orders::Item;
    use schemas::{Currency, Timestamp};

    use super::*;

    fn order(items: &[(&str, u32)]) -> OrderPlaced {
        let items: Vec<Item> = items
            .iter()
            .map(|(sku, quantity)| Item {
                sku: sku.parse().unwrap(),
                quantity: *quantity,
                unit_price_cents: 100,
            })
            .collect();
        OrderPlaced {
            order_id: OrderId::fresh(),
            customer_id: "C-1".parse().unwrap(),
            currency: Currency::EUR,
            placed_at: Timestamp::now(),
            total_cents: schemas::orders::total_of(&items).unwrap(),
            items,
        }
    }

    #[test]
    fn an_order_gets_all_its_items_or_none() {
        let both = order(&[("A", 1), ("B", 2)]);
        let mut available = HashMap::from([("A".to_owned(), 5), ("B".to_owned(), 1)]);

        let decisions = decide(&[(0, &both)], &mut available);

        assert!(decisions.reserved.is_empty() && decisions.taken.is_empty());
        assert_eq!(decisions.rejected[0].2, StockRejection::InsufficientStock);
        assert_eq!(available["A"], 5, "nothing was taken from A for an order that B failed");
    }

    #[test]
    fn the_last_piece_goes_to_the_first_who_asked() {
        let (early, late) = (order(&[("A", 1)]), order(&[("A", 1)]));
        let mut available = HashMap::from([("A".to_owned(), 1)]);

        let decisions = decide(&[(0, &early), (1, &late)], &mut available);

        assert_eq!(decisions.reserved[0].0, 0);
        assert_eq!(decisions.rejected[0].0, 1);
        assert_eq!(decisions.taken["A"], 1);
    }

    #[test]
    fn lines_of_one_sku_are_added_up() {
        let twice = order(&[("A", 2), ("A", 2)]);
        let mut available = HashMap::from([("A".to_owned(), 3)]);

        let decisions = decide(&[(0, &twice)], &mut available);

        assert!(decisions.reserved.is_empty(), "four were promised of three");
    }

    #[test]
    fn a_sku_nobody_stocked_is_named() {
        let unknown = order(&[("GHOST", 1)]);

        let decisions = decide(&[(0, &unknown)], &mut HashMap::new());

        assert_eq!(decisions.rejected[0].2, StockRejection::UnknownSku);
        assert_eq!(decisions.rejected[0].3.as_str(), "GHOST");
    }
}
