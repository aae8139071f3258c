//! The JSON of an order as clients write it, read once and never trusted.
//!
//! Unknown members are ignored. Everything else that is wrong is found in one pass and reported in the order of
//! the documentation, not of the document, so the same mistakes give the same answer.

mod json;

use std::fmt::Write as _;

use schemas::orders::{InvalidOrder, Item};
use schemas::values::{InvalidValue, MAX_ITEMS, MAX_QUANTITY, MAX_UNIT_PRICE_CENTS};
use serde::Serialize;
use utoipa::ToSchema;

use self::json::{Draft, DraftItem, Field, Items, Scalar};
use crate::idempotency::{IdempotencyKey, InvalidKey};
use crate::order::NewOrder;

/// An order to be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({
    "customer_id": "C-000042",
    "currency": "EUR",
    "items": [{"sku": "SKU-00042", "quantity": 2, "unit_price_cents": 1999}]
}))]
pub struct OrderRequest {
    /// Who orders; no control characters.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub customer_id: String,
    /// ISO 4217 code.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
    /// What is ordered.
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<ItemRequest>,
}

/// One item of an order to be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemRequest {
    /// What.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub sku: String,
    /// How many.
    #[schema(minimum = 1, maximum = 10_000)]
    pub quantity: u32,
    /// Price of one, in minor units.
    #[schema(minimum = 0, maximum = 100_000_000)]
    pub unit_price_cents: i64,
}

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) to the place.
    pub pointer: String,
    /// What it must be.
    pub message: String,
}

/// Why a text is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not JSON at all.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// JSON that breaks rules.
    #[error("the order breaks {} of the rules", .0.len())]
    Invalid(Vec<Violation>),
}

/// An order with the key its line carried; only batches and files carry keys in the text.
#[derive(Debug)]
pub struct Line {
    /// The order.
    pub order: NewOrder,
    /// Its `idempotency_key`, when there is one.
    pub key: Option<Result<IdempotencyKey, InvalidKey>>,
}

/// Enough to fix a request; a body of ten thousand mistakes is one mistake.
const MAX_VIOLATIONS: usize = 20;

/// Reads the body of a single order.
pub fn parse_order(body: &[u8]) -> Result<NewOrder, RequestError> {
    Ok(check(read(body)?)?.0)
}

/// Reads a line of a batch or file, which may carry `idempotency_key`.
pub fn parse_line(line: &[u8]) -> Result<Line, RequestError> {
    let (order, key) = check(read(line)?)?;
    let key = match key {
        Field::Absent | Field::Is(Scalar::Null) => None,
        Field::Is(Scalar::Text(text)) => Some(IdempotencyKey::parse(text.as_bytes())),
        _ => Some(Err(InvalidKey)),
    };
    Ok(Line { order, key })
}

fn read(body: &[u8]) -> Result<Draft<'_>, RequestError> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            // The only complaint of this kind: some other JSON value than an object.
            let violation =
                Violation { pointer: String::new(), message: "must be an object".into() };
            RequestError::Invalid(vec![violation])
        } else {
            RequestError::Malformed(error.to_string())
        }
    })
}

fn check(draft: Draft<'_>) -> Result<(NewOrder, Field<'_>), RequestError> {
    let mut found = Found::default();
    let customer_id = found.text("/customer_id", draft.customer_id);
    let currency = found.text("/currency", draft.currency);
    let items = found.items(draft.items);
    let total_cents = match draft.total_cents {
        Field::Absent | Field::Is(Scalar::Null) => None,
        field => found.integer("/total_cents", field, 0, i64::MAX),
    };
    if let (Some(customer_id), Some(currency), Some(items)) = (customer_id, currency, items)
        && found.violations.is_empty()
    {
        match NewOrder::new(customer_id, currency, items) {
            Ok(order) if total_cents.is_none_or(|total| total == order.total_cents()) => {
                return Ok((order, draft.idempotency_key));
            }
            Ok(_) => found.add("/total_cents", InvalidOrder::Total),
            Err(error) => found.add("/items", error),
        }
    }
    found.violations.truncate(MAX_VIOLATIONS);
    Err(RequestError::Invalid(found.violations))
}

/// What was found wrong so far. Methods answer `None` after adding to it.
#[derive(Default)]
struct Found {
    violations: Vec<Violation>,
}

impl Found {
    fn add(&mut self, pointer: impl Into<String>, message: impl ToString) {
        self.violations.push(Violation { pointer: pointer.into(), message: message.to_string() });
    }

    fn text<T>(&mut self, pointer: &str, field: Field<'_>) -> Option<T>
    where
        T: TryFrom<String, Error = InvalidValue>,
    {
        match field {
            Field::Is(Scalar::Text(text)) => match T::try_from(text.into_owned()) {
                Ok(value) => return Some(value),
                Err(error) => self.add(pointer, error),
            },
            Field::Is(_) => self.add(pointer, "must be a string"),
            Field::Absent => self.add(pointer, "is required"),
            Field::Repeated => self.add(pointer, "appears more than once"),
        }
        None
    }

    fn integer(&mut self, pointer: &str, field: Field<'_>, min: i64, max: i64) -> Option<i64> {
        match field {
            Field::Is(Scalar::Integer(value)) if (min..=max).contains(&value) => {
                return Some(value);
            }
            Field::Is(_) => {
                let mut message = String::with_capacity(64);
                write!(message, "must be an integer from {min} to {max}")
                    .expect("writing to a string never fails");
                self.add(pointer, message);
            }
            Field::Absent => self.add(pointer, "is required"),
            Field::Repeated => self.add(pointer, "appears more than once"),
        }
        None
    }

    fn items(&mut self, items: Items<'_>) -> Option<Vec<Item>> {
        let (drafts, total) = match items {
            Items::List { drafts, total } => (drafts, total),
            Items::Other => {
                self.add("/items", "must be a list");
                return None;
            }
            Items::Absent => {
                self.add("/items", "is required");
                return None;
            }
            Items::Repeated => {
                self.add("/items", "appears more than once");
                return None;
            }
        };
        if !(1..=MAX_ITEMS).contains(&total) {
            self.add("/items", InvalidOrder::ItemCount);
            return None;
        }
        let mut valid = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.into_iter().enumerate() {
            valid.extend(self.item(index, draft));
            if self.violations.len() >= MAX_VIOLATIONS {
                break;
            }
        }
        Some(valid)
    }

    fn item(&mut self, index: usize, draft: Option<DraftItem<'_>>) -> Option<Item> {
        let Some(draft) = draft else {
            self.add(format!("/items/{index}"), "must be an object");
            return None;
        };
        // The pointer is only spelled out for a mistake: this runs for every item of every order.
        let before = self.violations.len();
        let sku = self.text("sku", draft.sku);
        let quantity = self.integer("quantity", draft.quantity, 1, i64::from(MAX_QUANTITY));
        let unit_price_cents =
            self.integer("unit_price_cents", draft.unit_price_cents, 0, MAX_UNIT_PRICE_CENTS);
        for violation in &mut self.violations[before..] {
            violation.pointer = format!("/items/{index}/{}", violation.pointer);
        }
        let quantity = u32::try_from(quantity?).ok()?;
        Some(Item { sku: sku?, quantity, unit_price_cents: unit_price_cents? })
    }
}

#[cfg(test)]
mod tests;
