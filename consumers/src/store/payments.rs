//! `payments`: what the payment stage decided, one row per order.

use std::collections::HashMap;

use schemas::OrderId;
use sqlx::Row;
use uuid::Uuid;

use super::operations::Operation;
use super::session::Session;

/// A decision as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) state: State,
    pub(crate) payment_id: Option<String>,
    pub(crate) amount_cents: i64,
    pub(crate) currency: String,
}

/// Where an order's money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// With us.
    Captured,
    /// With the customer: the gateway refused.
    Declined,
    /// With the customer again.
    Refunded,
    /// With the customer: the order was given up before it was charged, and never will be.
    Voided,
}

/// A row to be written.
#[derive(Debug)]
pub(crate) struct NewPayment<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) state: State,
    pub(crate) payment_id: Option<&'a str>,
    pub(crate) amount_cents: i64,
    pub(crate) currency: &'a str,
    pub(crate) reason: Option<&'a str>,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Refunded => "refunded",
            Self::Voided => "voided",
        }
    }

    fn parse(text: &str) -> Result<Self, sqlx::Error> {
        [Self::Captured, Self::Declined, Self::Refunded, Self::Voided]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| sqlx::Error::Decode(format!("unknown payment state {text}").into()))
    }
}

/// The decisions on `orders` so far.
pub(crate) async fn read(
    db: &mut Session<'_>,
    orders: &[Uuid],
) -> Result<HashMap<OrderId, Payment>, sqlx::Error> {
    let rows = sqlx::query(
        "select order_id, state, payment_id, amount_cents, currency from payments where order_id = any($1)",
    )
    .bind(orders)
    .fetch_all(&mut *db.timed(Operation::PaymentsRead))
    .await?;
    rows.into_iter()
        .map(|row| {
            let payment = Payment {
                state: State::parse(row.try_get(1)?)?,
                payment_id: row.try_get(2)?,
                amount_cents: row.try_get(3)?,
                currency: row.try_get(4)?,
            };
            Ok((OrderId(row.try_get(0)?), payment))
        })
        .collect()
}

/// Writes decisions on orders that had none. Fewer rows than asked for: somebody else was first.
pub(crate) async fn insert(
    db: &mut Session<'_>,
    payments: &[NewPayment<'_>],
) -> Result<usize, sqlx::Error> {
    let ids: Vec<Uuid> = payments.iter().map(|p| p.order_id.0).collect();
    let states: Vec<&str> = payments.iter().map(|p| p.state.as_str()).collect();
    let payment_ids: Vec<Option<&str>> = payments.iter().map(|p| p.payment_id).collect();
    let amounts: Vec<i64> = payments.iter().map(|p| p.amount_cents).collect();
    let currencies: Vec<&str> = payments.iter().map(|p| p.currency).collect();
    let reasons: Vec<Option<&str>> = payments.iter().map(|p| p.reason).collect();
    let done = sqlx::query(
        "insert into payments (order_id, state, payment_id, amount_cents, currency, reason)
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[])
         on conflict on constraint payments_pkey do nothing",
    )
    .bind(ids)
    .bind(states)
    .bind(payment_ids)
    .bind(amounts)
    .bind(currencies)
    .bind(reasons)
    .execute(&mut *db.timed(Operation::PaymentsInsert))
    .await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

/// Marks captured payments as refunded. Fewer rows than asked for: somebody else was first.
pub(crate) async fn refund(db: &mut Session<'_>, orders: &[Uuid]) -> Result<usize, sqlx::Error> {
    let done = sqlx::query(
        "update payments
            set state = 'refunded', updated_at = now()
          where order_id = any($1) and state = 'captured'",
    )
    .bind(orders)
    .execute(&mut *db.timed(Operation::PaymentsRefund))
    .await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}
