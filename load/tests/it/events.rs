//! Records of single events, as an honest client of Kafka would write them.

use load::records::Record;
use producers::request::OrderRequest;
use rand::Rng as _;
use schemas::orders::CancelRequested;
use schemas::{Event, OrderId, Timestamp};

use crate::world::plain_orders;

/// A sound record of a plain order under `order_id`.
pub(crate) fn placed(order_id: OrderId) -> Record {
    placed_as(order_id, &plain_orders(1, 77).next().unwrap())
}

/// A sound record of `order` under `order_id`.
pub(crate) fn placed_as(order_id: OrderId, order: &OrderRequest) -> Record {
    record_of(&order.placed(order_id, Timestamp::now()).unwrap())
}

/// A sound record of the wish to cancel `order_id`.
pub(crate) fn cancel_requested(order_id: OrderId) -> Record {
    record_of(&Event::CancelRequested(CancelRequested { order_id, requested_at: Timestamp::now() }))
}

/// With `from` in its value replaced by `to`.
pub(crate) fn edited(record: Record, from: &str, to: &str) -> Record {
    let text = String::from_utf8(record.value.clone().unwrap()).unwrap();
    assert!(text.contains(from), "{text}");
    Record { value: Some(text.replacen(from, to, 1).into_bytes()), ..record }
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rand::rng().fill_bytes(&mut noise);
    noise
}

/// The order that a record's key names, when it names one.
pub(crate) fn order_id(record: &Record) -> Option<OrderId> {
    OrderId::from_key(record.key.as_deref()?)
}

fn record_of(event: &Event) -> Record {
    // The broker's clock counts, not this one's.
    Record { timestamp_ms: Some(0), ..Record::of(event, "/test", Timestamp::now()) }
}
