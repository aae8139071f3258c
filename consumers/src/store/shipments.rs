//! `shipments`: what the shipping stage decided, one row per order. The row decides between shipping and cancelling.

use std::collections::{HashMap, HashSet};

use schemas::OrderId;
use sqlx::Row;
use uuid::Uuid;

use super::operations::Operation;
use super::session::Session;

/// How an order's shipping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A carrier takes it.
    Arranged,
    /// The cancellation came first.
    Cancelled,
    /// No carrier takes it.
    Refused,
}

/// A row to be written.
#[derive(Debug)]
pub(crate) struct NewShipment<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) state: State,
    pub(crate) carrier: Option<&'a str>,
    pub(crate) tracking_number: Option<&'a str>,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Arranged => "arranged",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }

    fn parse(text: &str) -> Result<Self, sqlx::Error> {
        [Self::Arranged, Self::Cancelled, Self::Refused]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| sqlx::Error::Decode(format!("unknown shipment state {text}").into()))
    }
}

/// The decisions on `orders` so far.
pub(crate) async fn read(
    db: &mut Session<'_>,
    orders: &[Uuid],
) -> Result<HashMap<OrderId, State>, sqlx::Error> {
    let rows = sqlx::query("select order_id, state from shipments where order_id = any($1)")
        .bind(orders)
        .fetch_all(&mut *db.timed(Operation::ShipmentsRead))
        .await?;
    rows.into_iter()
        .map(|row| Ok((OrderId(row.try_get(0)?), State::parse(row.try_get(1)?)?)))
        .collect()
}

/// Writes decisions and returns the orders for which they were the first.
pub(crate) async fn insert(
    db: &mut Session<'_>,
    shipments: &[NewShipment<'_>],
) -> Result<HashSet<OrderId>, sqlx::Error> {
    let ids: Vec<Uuid> = shipments.iter().map(|s| s.order_id.0).collect();
    let states: Vec<&str> = shipments.iter().map(|s| s.state.as_str()).collect();
    let carriers: Vec<Option<&str>> = shipments.iter().map(|s| s.carrier).collect();
    let tracking: Vec<Option<&str>> = shipments.iter().map(|s| s.tracking_number).collect();
    let rows = sqlx::query(
        "insert into shipments (order_id, state, carrier, tracking_number)
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
         on conflict on constraint shipments_pkey do nothing
         returning order_id",
    )
    .bind(ids)
    .bind(states)
    .bind(carriers)
    .bind(tracking)
    .fetch_all(&mut *db.timed(Operation::ShipmentsInsert))
    .await?;
    rows.into_iter().map(|row| Ok(OrderId(row.try_get(0)?))).collect()
}
