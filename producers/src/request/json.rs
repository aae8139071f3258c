//! The shape of an order's JSON, with every value kept as whatever it is.
//!
//! Only text that is no JSON fails here (bad syntax, bad UTF-8, numbers beyond f64, nesting beyond serde_json's 128
//! levels, also inside of members nobody reads); a value of the wrong type is kept, so that all of them can be
//! reported at once. Memory stays proportional to the text: what is not needed is dropped while reading.

use std::borrow::Cow;
use std::fmt;

use schemas::values::MAX_ITEMS;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    pub(super) customer_id: Field<'a>,
    pub(super) currency: Field<'a>,
    pub(super) items: Items<'a>,
    pub(super) total_cents: Field<'a>,
    pub(super) idempotency_key: Field<'a>,
}

#[derive(Debug, Default)]
pub(super) struct DraftItem<'a> {
    pub(super) sku: Field<'a>,
    pub(super) quantity: Field<'a>,
    pub(super) unit_price_cents: Field<'a>,
}

#[derive(Debug, Default)]
pub(super) enum Field<'a> {
    #[default]
    Absent,
    Is(Scalar<'a>),
    /// Two members of one name: readers differ in which one counts, so neither does.
    Repeated,
}

#[derive(Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Text(Cow<'a, str>),
    Integer(i64),
    /// A boolean, a fraction, an integer beyond i64, a list or an object.
    Other,
}

#[derive(Debug, Default)]
pub(super) enum Items<'a> {
    #[default]
    Absent,
    /// The first [`MAX_ITEMS`] elements, `None` where one is no object, and how many there were.
    List {
        drafts: Vec<Option<DraftItem<'a>>>,
        total: usize,
    },
    Other,
    Repeated,
}

impl<'a> Field<'a> {
    fn read<A: MapAccess<'a>>(&mut self, members: &mut A) -> Result<(), A::Error> {
        let value = members.next_value()?;
        *self = match self {
            Self::Absent => Self::Is(value),
            Self::Is(_) | Self::Repeated => Self::Repeated,
        };
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Draft<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Order;
        impl<'de> Visitor<'de> for Order {
            type Value = Draft<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Draft<'de>, A::Error> {
                let mut draft = Draft::default();
                while let Some(name) = members.next_key::<Name<'de>>()? {
                    match &*name.0 {
                        "customer_id" => draft.customer_id.read(&mut members)?,
                        "currency" => draft.currency.read(&mut members)?,
                        "total_cents" => draft.total_cents.read(&mut members)?,
                        "idempotency_key" => draft.idempotency_key.read(&mut members)?,
                        "items" => {
                            let items = members.next_value()?;
                            draft.items = match draft.items {
                                Items::Absent => items,
                                _ => Items::Repeated,
                            };
                        }
                        _ => {
                            members.next_value::<Scalar<'de>>()?;
                        }
                    }
                }
                Ok(draft)
            }
        }
        deserializer.deserialize_map(Order)
    }
}

/// A member's name; borrowed unless it holds escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(AnyValue)? {
            Scalar::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a member's name is a string")),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Reads any value; lists and objects are read to their end, so that what is inside is checked as JSON.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(i64::try_from(value).map_or(Scalar::Other, Scalar::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Scalar<'de>, A::Error> {
        while elements.next_element::<Scalar<'de>>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar<'de>, A::Error> {
        while members.next_entry::<Name<'de>, Scalar<'de>>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// Answers everything that is not of the wanted shape by reading it as [`AnyValue`].
macro_rules! other_than {
    ($($method:ident($value:ty)),*; $other:expr) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON value")
        }

        $(fn $method<E>(self, _: $value) -> Result<Self::Value, E> {
            Ok($other)
        })*

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($other)
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Items<'de>;

            other_than!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str); Items::Other);

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Items<'de>, A::Error> {
                AnyValue.visit_map(members)?;
                Ok(Items::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Items<'de>, A::Error> {
                let mut drafts = Vec::with_capacity(4);
                while drafts.len() < MAX_ITEMS {
                    let Some(element) = elements.next_element_seed(Element)? else {
                        let total = drafts.len();
                        return Ok(Items::List { drafts, total });
                    };
                    drafts.push(element);
                }
                let mut total = drafts.len();
                while elements.next_element::<Scalar<'de>>()?.is_some() {
                    total += 1;
                }
                Ok(Items::List { drafts, total })
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// Reads an item, or `None` from anything else than an object.
struct Element;

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Option<DraftItem<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element {
    type Value = Option<DraftItem<'de>>;

    other_than!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str); None);

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        AnyValue.visit_seq(elements)?;
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut draft = DraftItem::default();
        while let Some(name) = members.next_key::<Name<'de>>()? {
            match &*name.0 {
                "sku" => draft.sku.read(&mut members)?,
                "quantity" => draft.quantity.read(&mut members)?,
                "unit_price_cents" => draft.unit_price_cents.read(&mut members)?,
                _ => {
                    members.next_value::<Scalar<'de>>()?;
                }
            }
        }
        Ok(Some(draft))
    }
}
