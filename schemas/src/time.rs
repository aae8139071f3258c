//! One instant type for events and rows: microseconds since the Unix epoch, RFC 3339 on the wire.
//!
//! Microseconds because that is what Postgres stores: a value survives Kafka and the database unchanged.

use std::borrow::Cow;
use std::fmt;

use jiff::fmt::temporal::DateTimePrinter;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant, UTC, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// Earliest and latest instant an event may carry. Outside of it a clock is broken, and retention,
/// indexes and dashboards would be led astray by one record.
const EARLIEST: i64 = 946_684_800_000_000; // 2000-01-01
const LATEST: i64 = 4_102_444_800_000_000; // 2100-01-01

/// A text or number that is no instant between the years 2000 and 2100.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 time between 2000 and 2100")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// The wall clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// From microseconds since the Unix epoch.
    pub fn from_micros(micros: i64) -> Result<Self, InvalidTimestamp> {
        if (EARLIEST..LATEST).contains(&micros) { Ok(Self(micros)) } else { Err(InvalidTimestamp) }
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Seconds from `earlier` to `self`; zero when clocks disagree about which came first.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0).max(0) as f64 / 1e6
    }

    /// Parses RFC 3339.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        Self::from_micros(parsed.as_microsecond())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        let stamp = jiff::Timestamp::from_microsecond(self.0).map_err(|_| fmt::Error)?;
        PRINTER.print_timestamp(&stamp, jiff::fmt::StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time between 2000 and 2100")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire_to_the_microsecond() {
        let time = Timestamp::parse("2026-11-22T10:20:30.123456Z").unwrap();

        assert_eq!(time.to_string(), "2026-11-22T10:20:30.123456Z");
        assert_eq!(Timestamp::parse("2026-11-22T12:20:30.123456+02:00").unwrap(), time);
    }

    #[test]
    fn times_of_broken_clocks_are_refused() {
        for text in ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "yesterday", ""] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }
}
