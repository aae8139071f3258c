//! Reads of the projection: the tables `orders` and `order_events`, which the order stage owns.
//!
//! Nothing here writes, and nothing else in this crate speaks SQL. Details of an order may be absent: its topics
//! race each other, so a payment can be known before the order is.

use schemas::orders::Item;
use schemas::{OrderId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::types::Json;
use sqlx::{Row, query};
use utoipa::ToSchema;
use uuid::Uuid;

use schemas::orders::Fingerprint;

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Status {
    Placed,
    Reserved,
    Paid,
    Shipped,
    Rejected,
    Declined,
    Cancelled,
}

/// An order as the projection knows it. Facts not known (yet) are absent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OrderView {
    /// The order.
    pub order_id: Uuid,
    /// How far it is.
    pub status: Status,
    /// Whether the status is the last one: `shipped`, `rejected`, `declined` or `cancelled`.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Who ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// Currency of the amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Sum of the items, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_cents: Option<i64>,
    /// What was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<crate::request::ItemRequest>>)]
    pub items: Option<Vec<Item>>,
    /// When it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub placed_at: Option<Timestamp>,
    /// When the projection last learnt something about it.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When its stock was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reserved_at: Option<Timestamp>,
    /// When it was rejected for want of stock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub rejected_at: Option<Timestamp>,
    /// When it was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paid_at: Option<Timestamp>,
    /// When its payment was declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub declined_at: Option<Timestamp>,
    /// When its payment was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub refunded_at: Option<Timestamp>,
    /// When its shipment was arranged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub shipped_at: Option<Timestamp>,
    /// When its stock was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub released_at: Option<Timestamp>,
    /// When its customer asked to cancel it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cancel_requested_at: Option<Timestamp>,
    /// Why its stock was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_reason: Option<String>,
    /// Why it was rejected or declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An event of an order's timeline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Its `ce_id`.
    pub event_id: Uuid,
    /// Its `ce_type`.
    pub event_type: String,
    /// When the fact happened.
    #[schema(value_type = String, format = DateTime)]
    pub occurred_at: Timestamp,
    /// Why, where the event says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the projection knows of an order that somebody wants to place again.
#[derive(Clone, Copy, Debug)]
pub struct KnownOrder {
    /// The order.
    pub order_id: OrderId,
    /// Absent while only later facts are known.
    pub placed: Option<(Fingerprint, Timestamp)>,
}

/// Which page of orders to list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only orders of this status.
    pub status: Option<Status>,
    /// Only orders after this one, in the list's order.
    pub after: Option<OrderId>,
    /// How many at most.
    pub limit: u16,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Placed,
        Self::Reserved,
        Self::Paid,
        Self::Shipped,
        Self::Rejected,
        Self::Declined,
        Self::Cancelled,
    ];

    /// The name in the database and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Reserved => "reserved",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Rejected => "rejected",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing follows it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Shipped | Self::Rejected | Self::Declined | Self::Cancelled)
    }
}

/// A select of whole orders. Times travel as microseconds, the unit of [`Timestamp`].
macro_rules! select_orders {
    ($conditions:literal) => {
        concat!(
            "select order_id, status, customer_id, currency, total_cents, items,
                (extract(epoch from placed_at) * 1000000)::bigint as placed_at,
                (extract(epoch from updated_at) * 1000000)::bigint as updated_at,
                (extract(epoch from reserved_at) * 1000000)::bigint as reserved_at,
                (extract(epoch from rejected_at) * 1000000)::bigint as rejected_at,
                (extract(epoch from paid_at) * 1000000)::bigint as paid_at,
                (extract(epoch from declined_at) * 1000000)::bigint as declined_at,
                (extract(epoch from refunded_at) * 1000000)::bigint as refunded_at,
                (extract(epoch from shipped_at) * 1000000)::bigint as shipped_at,
                (extract(epoch from released_at) * 1000000)::bigint as released_at,
                (extract(epoch from cancel_requested_at) * 1000000)::bigint as cancel_requested_at,
                release_reason, reason
            from orders ",
            $conditions
        )
    };
}

/// One order.
pub async fn order(pool: &PgPool, order: OrderId) -> sqlx::Result<Option<OrderView>> {
    let row =
        query(select_orders!("where order_id = $1")).bind(order.0).fetch_optional(pool).await?;
    row.as_ref().map(order_view).transpose()
}

/// Of the orders `waiting`, those with a final status, and those in `any_status` with whatever they have.
pub async fn orders_ready(
    pool: &PgPool,
    waiting: &[Uuid],
    any_status: &[Uuid],
) -> sqlx::Result<Vec<OrderView>> {
    let rows = query(select_orders!(
        "where order_id = any($1)
            and (status in ('shipped', 'rejected', 'declined', 'cancelled') or order_id = any($2))"
    ))
    .bind(waiting)
    .bind(any_status)
    .fetch_all(pool)
    .await?;
    rows.iter().map(order_view).collect()
}

/// A page of orders, largest id first: for ids made here, the newest.
pub async fn orders(pool: &PgPool, page: Page) -> sqlx::Result<Vec<OrderView>> {
    let rows = query(select_orders!(
        "where ($1::text is null or status = $1)
            and ($2::uuid is null or order_id < $2)
        order by order_id desc
        limit $3"
    ))
    .bind(page.status.map(Status::name))
    .bind(page.after.map(|order| order.0))
    .bind(i64::from(page.limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(order_view).collect()
}

/// The timeline of an order. Empty both for an unknown order and for one of which nothing was told yet.
pub async fn events(pool: &PgPool, order: OrderId) -> sqlx::Result<Vec<EventView>> {
    let rows = query(
        "select event_id, event_type, reason,
            (extract(epoch from occurred_at) * 1000000)::bigint as occurred_at
        from order_events
        where order_id = $1
        order by occurred_at, event_id",
    )
    .bind(order.0)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(EventView {
                event_id: row.try_get("event_id")?,
                event_type: row.try_get("event_type")?,
                occurred_at: instant(row.try_get("occurred_at")?)?,
                reason: row.try_get("reason")?,
            })
        })
        .collect()
}

/// Which of `orders` exist, and what they were for.
pub async fn known_orders(pool: &PgPool, orders: &[Uuid]) -> sqlx::Result<Vec<KnownOrder>> {
    let rows = query(
        "select order_id, customer_id, currency, items,
            (extract(epoch from placed_at) * 1000000)::bigint as placed_at
        from orders
        where order_id = any($1)",
    )
    .bind(orders)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let customer_id: Option<&str> = row.try_get("customer_id")?;
            let currency: Option<&str> = row.try_get("currency")?;
            // One unreadable row must not hide the others; it counts as one without details.
            let items: Option<Json<Vec<Item>>> = row.try_get("items").unwrap_or(None);
            let placed_at: Option<i64> = row.try_get("placed_at")?;
            let placed = match (customer_id, currency, items, placed_at) {
                (Some(customer_id), Some(currency), Some(Json(items)), Some(placed_at)) => {
                    Some((Fingerprint::of(customer_id, currency, &items), instant(placed_at)?))
                }
                _ => None,
            };
            Ok(KnownOrder { order_id: OrderId(row.try_get("order_id")?), placed })
        })
        .collect()
}

/// Whether Postgres answers.
pub async fn ping(pool: &PgPool) -> sqlx::Result<()> {
    query("select 1").execute(pool).await?;
    Ok(())
}

fn order_view(row: &PgRow) -> sqlx::Result<OrderView> {
    let name: &str = row.try_get("status")?;
    let status = Status::from_name(name)
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown status {name}").into()))?;
    let items: Option<Json<Vec<Item>>> = row.try_get("items")?;
    let time = |column: &str| row.try_get::<Option<i64>, _>(column)?.map(instant).transpose();
    Ok(OrderView {
        order_id: row.try_get("order_id")?,
        status,
        is_final: status.is_final(),
        customer_id: row.try_get("customer_id")?,
        currency: row.try_get("currency")?,
        total_cents: row.try_get("total_cents")?,
        items: items.map(|Json(items)| items),
        placed_at: time("placed_at")?,
        updated_at: instant(row.try_get("updated_at")?)?,
        reserved_at: time("reserved_at")?,
        rejected_at: time("rejected_at")?,
        paid_at: time("paid_at")?,
        declined_at: time("declined_at")?,
        refunded_at: time("refunded_at")?,
        shipped_at: time("shipped_at")?,
        released_at: time("released_at")?,
        cancel_requested_at: time("cancel_requested_at")?,
        release_reason: row.try_get("release_reason")?,
        reason: row.try_get("reason")?,
    })
}

fn instant(micros: i64) -> sqlx::Result<Timestamp> {
    Timestamp::from_micros(micros).map_err(|error| sqlx::Error::Decode(error.into()))
}
