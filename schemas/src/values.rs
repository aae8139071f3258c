//! Values with rules: once one of these exists, it is valid. Parsed at the edge, never checked again.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Largest count of items an order may have: keeps an event well below the broker's message limit and one
/// order's share of a batch small.
pub const MAX_ITEMS: usize = 100;
/// Largest quantity of one item.
pub const MAX_QUANTITY: u32 = 10_000;
/// Largest unit price, in minor units (one million euros). With the limits above, totals stay far inside i64.
pub const MAX_UNIT_PRICE_CENTS: i64 = 100_000_000;

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
        // U+0000 is among the control characters; Postgres text cannot hold it.
        let length = text.chars().count();
        if (1..=64).contains(&length) && !text.chars().any(char::is_control) {
            Ok(Self(text))
        } else {
            Err(InvalidValue("a customer id has 1 to 64 characters, none of them a control character"))
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
text_value!(Sku, "^[A-Za-z0-9._-]+$", 64);
text_value!(Currency, "^[A-Z]{3}$", 3);

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
    fn currencies_are_three_upper_case_letters() {
        assert_eq!("EUR".parse::<Currency>().unwrap().as_str(), "EUR");
        for bad in ["eur", "EU", "EURO", "E\u{fc}", "12A"] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }
}
