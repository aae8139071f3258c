//! Values with rules: once one of these exists, it is valid. Parsed at the edge, never checked again.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// Largest count of items an order may have: keeps an event well below the broker's message limit and one
/// order's share of a batch small.
pub const MAX_ITEMS: usize = 100;
/// Largest quantity of one item.
pub const MAX_QUANTITY: u32 = 10_000;
/// Largest unit price, in minor units (one million euros). With the limits above, totals stay far inside i64.
pub const MAX_UNIT_PRICE_CENTS: i64 = 100_000_000;
/// Largest quantity of one SKU over all items of an order, which may name a SKU more than once.
pub const MAX_RESERVED_QUANTITY: u32 = MAX_ITEMS as u32 * MAX_QUANTITY;
/// Largest amount of an order: every item at its largest.
pub const MAX_AMOUNT_CENTS: i64 = MAX_RESERVED_QUANTITY as i64 * MAX_UNIT_PRICE_CENTS;

/// A text that breaks the rule of its type; the message says which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(&'static str);

/// Who ordered: 1 to 64 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CustomerId(String);

/// What was ordered: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sku(String);

/// A word of somebody else's, such as a gateway's payment id or reason: 1 to 128 characters, none of them a
/// control character.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShortText(String);

/// ISO 4217 alphabetic code: three upper-case letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl CustomerId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Sku {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ShortText {
    /// A word known when the program is built. Panics when it breaks the rule.
    pub fn from_static(text: &'static str) -> Self {
        text.parse()
            .expect("a word in the program is 1 to 128 characters without control characters")
    }

    /// `<prefix>-<id>`, an id made from an id.
    pub fn from_id(prefix: &'static str, id: uuid::Uuid) -> Self {
        Self(format!("{prefix}-{id}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters, checked when it was made")
    }
}

impl TryFrom<String> for CustomerId {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        if is_line_of_text(&text, 64) {
            Ok(Self(text))
        } else {
            Err(InvalidValue(
                "a customer id has 1 to 64 characters, none of them a control character",
            ))
        }
    }
}

impl TryFrom<String> for Sku {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err(InvalidValue("a sku has 1 to 64 characters of A-Z a-z 0-9 . _ -"))
        }
    }
}

impl TryFrom<String> for ShortText {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        if is_line_of_text(&text, 128) {
            Ok(Self(text))
        } else {
            Err(InvalidValue(
                "a short text has 1 to 128 characters, none of them a control character",
            ))
        }
    }
}

/// U+0000 is among the control characters; Postgres text cannot hold it.
fn is_line_of_text(text: &str, max_chars: usize) -> bool {
    (1..=max_chars).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl TryFrom<String> for Currency {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(InvalidValue("a currency is an ISO 4217 code of three upper-case letters")),
        }
    }
}

macro_rules! text_value {
    ($name:ident, $pattern:literal, $max:literal) => {
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                Self::try_from(text.to_owned())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "minLength": 1, "maxLength": $max, "pattern": $pattern
                })
            }
        }
    };
}

text_value!(CustomerId, "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", 64);
text_value!(ShortText, "^[^\\u0000-\\u001f\\u007f-\\u009f]+$", 128);
text_value!(Sku, "^[A-Za-z0-9._-]+$", 64);
text_value!(Currency, "^[A-Z]{3}$", 3);

/// For `deserialize_with`: an amount that an order can have, in minor units.
pub(crate) fn amount_cents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let cents = i64::deserialize(deserializer)?;
    if (0..=MAX_AMOUNT_CENTS).contains(&cents) {
        Ok(cents)
    } else {
        Err(de::Error::custom(format_args!("an amount is between 0 and {MAX_AMOUNT_CENTS} cents")))
    }
}

/// For `deserialize_with`: how much of one SKU an order can hold. Fits Postgres' integer.
pub(crate) fn reserved_quantity<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let quantity = u32::deserialize(deserializer)?;
    if (1..=MAX_RESERVED_QUANTITY).contains(&quantity) {
        Ok(quantity)
    } else {
        Err(de::Error::custom(format_args!("a quantity is between 1 and {MAX_RESERVED_QUANTITY}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customer_ids_count_characters_and_refuse_what_postgres_cannot_hold() {
        assert!("ü".repeat(64).parse::<CustomerId>().is_ok());
        assert!("ü".repeat(65).parse::<CustomerId>().is_err());
        assert!("a\u{0}b".parse::<CustomerId>().is_err());
        assert!("".parse::<CustomerId>().is_err());
    }

    #[test]
    fn short_texts_refuse_what_is_empty_long_or_cannot_be_stored() {
        assert!("x".repeat(128).parse::<ShortText>().is_ok());
        for bad in ["", "a\u{0}b", "a\nb", "\u{85}", &"x".repeat(129)] {
            assert!(bad.parse::<ShortText>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn currencies_are_three_upper_case_letters() {
        assert_eq!("EUR".parse::<Currency>().unwrap().as_str(), "EUR");
        for bad in ["eur", "EU", "EURO", "E\u{fc}", "12A"] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }
}
