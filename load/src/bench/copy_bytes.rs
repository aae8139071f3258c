//! Rows of `orders` and `order_events` in the binary form of COPY, as the order stage sends them.

use schemas::orders::OrderPlaced;
use schemas::{EventId, EventType};

/// Postgres counts microseconds from here.
const EPOCH_2000_MICROS: i64 = 946_684_800_000_000;

/// Must match [`orders`].
pub(super) const COPY_ORDERS: &str =
    "copy orders (order_id, customer_id, currency, total_cents, items, placed_at, updated_at)
     from stdin (format binary)";
/// Must match [`events`].
pub(super) const COPY_EVENTS: &str =
    "copy order_events (order_id, event_id, event_type, occurred_at) from stdin (format binary)";

pub(super) fn orders(orders: &[OrderPlaced]) -> anyhow::Result<Vec<u8>> {
    let mut rows = begin(orders.len() * 320);
    for order in orders {
        let time = micros(order).to_be_bytes();
        rows.extend_from_slice(&7_i16.to_be_bytes());
        field(&mut rows, order.order_id.0.as_bytes())?;
        field(&mut rows, order.customer_id.as_str().as_bytes())?;
        field(&mut rows, order.currency.as_str().as_bytes())?;
        field(&mut rows, &order.total_cents.to_be_bytes())?;
        let mut items = vec![1]; // version of jsonb's binary form
        serde_json::to_writer(&mut items, &order.items)?;
        field(&mut rows, &items)?;
        field(&mut rows, &time)?;
        field(&mut rows, &time)?;
    }
    Ok(end(rows))
}

pub(super) fn events(orders: &[OrderPlaced]) -> anyhow::Result<Vec<u8>> {
    let event_type = EventType::OrderPlaced.as_str();
    let mut rows = begin(orders.len() * 100);
    for order in orders {
        rows.extend_from_slice(&4_i16.to_be_bytes());
        field(&mut rows, order.order_id.0.as_bytes())?;
        field(&mut rows, EventId::opening(order.order_id, event_type).0.as_bytes())?;
        field(&mut rows, event_type.as_bytes())?;
        field(&mut rows, &micros(order).to_be_bytes())?;
    }
    Ok(end(rows))
}

/// When it was placed, as Postgres counts.
pub(super) fn micros(order: &OrderPlaced) -> i64 {
    order.placed_at.as_micros() - EPOCH_2000_MICROS
}

fn begin(capacity: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(capacity + 32);
    rows.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    rows.extend_from_slice(&[0; 8]); // no flags, no header extension
    rows
}

fn end(mut rows: Vec<u8>) -> Vec<u8> {
    rows.extend_from_slice(&(-1_i16).to_be_bytes());
    rows
}

fn field(rows: &mut Vec<u8>, bytes: &[u8]) -> anyhow::Result<()> {
    rows.extend_from_slice(&i32::try_from(bytes.len())?.to_be_bytes());
    rows.extend_from_slice(bytes);
    Ok(())
}
