//! Whatever a topic holds, decoding answers with an event that can be stored or with a code of the closed set.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use schemas::codec::{REPLAY_HEADER, decode};
use schemas::{DecodeError, Decoded, Envelope, Event, RawRecord, Topic, documents};
use serde_json::Value;

use crate::generate::record;

/// A record as bytes, free to be damaged.
#[derive(Clone, Debug)]
struct Bytes {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Bytes {
    fn of(envelope: &Envelope, event: &Event) -> Self {
        let headers = envelope.headers();
        Self {
            key: Some(event.order_id().to_string().into_bytes()),
            value: Some(event.to_json()),
            headers: headers.into_iter().map(|(n, v)| (n.into(), Some(v.into()))).collect(),
        }
    }

    fn decode(&self, topic: Topic) -> Result<Decoded, DecodeError> {
        let headers = self.headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref()));
        decode(topic, RawRecord { key: self.key.as_deref(), value: self.value.as_deref(), headers })
    }
}

/// One way to damage a record.
#[derive(Clone, Debug)]
enum Damage {
    FlipBit(Index, u8),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    Replace(Index, &'static str),
    NoKey,
    NoValue,
    DropHeader(Index),
    RepeatHeader(Index, Option<Vec<u8>>),
    OtherHeader(Vec<u8>, Option<Vec<u8>>),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Values that JSON parsers and databases disagree about.
    let hostile = select(vec![
        "\"\\u0000\"",
        "\"a\\u0000b\"",
        "\"\\ud800\"",
        "\"\"",
        "NaN",
        "-1",
        "1e999",
        "1e2",
        "0.5",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "2147483648",
        "4294967296",
        "null",
        "true",
        "[]",
        "{}",
        "\"1970-01-01T00:00:00Z\"",
        "\"2100-01-01T00:00:00Z\"",
        "\"9999-99-99T99:99:99Z\"",
    ]);
    prop_oneof![
        1 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::FlipBit(at, bit)),
        1 => any::<Index>().prop_map(Damage::Truncate),
        1 => (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (
            any::<Index>(),
            select(vec![b"[".repeat(20_000), b"{\"a\":".repeat(20_000), b"\\u0000".to_vec()])
        )
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        8 => (any::<Index>(), hostile).prop_map(|(at, text)| Damage::Replace(at, text)),
        1 => Just(Damage::NoKey),
        1 => Just(Damage::NoValue),
        1 => any::<Index>().prop_map(Damage::DropHeader),
        1 => (any::<Index>(), proptest::option::of(vec(any::<u8>(), 0..40)))
            .prop_map(|(at, value)| Damage::RepeatHeader(at, value)),
        1 => (header_name(), proptest::option::of(vec(any::<u8>(), 0..40)))
            .prop_map(|(name, value)| Damage::OtherHeader(name, value)),
    ]
}

fn header_name() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        "content-type",
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_time",
        "traceparent",
    ];
    prop_oneof![
        select(names.to_vec()).prop_map(|name| name.as_bytes().to_vec()),
        Just(REPLAY_HEADER.as_bytes().to_vec()),
        vec(any::<u8>(), 0..10),
    ]
}

fn inflict(record: &mut Bytes, damage: &Damage) {
    let value = record.value.get_or_insert_default();
    match damage {
        Damage::FlipBit(at, bit) if !value.is_empty() => {
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
        }
        Damage::Truncate(at) => value.truncate(at.index(value.len() + 1)),
        Damage::Insert(at, bytes) => {
            let at = at.index(value.len() + 1);
            value.splice(at..at, bytes.iter().copied());
        }
        Damage::Replace(at, text) => {
            if let Ok(mut json) = serde_json::from_slice::<Value>(value) {
                let mut leaves = Vec::new();
                collect_leaves(&mut json, &mut leaves);
                if let Some(leaf) = leaves.len().checked_sub(1).map(|last| at.index(last + 1)) {
                    *leaves[leaf] = MARKER.into();
                }
                let quoted = serde_json::to_string(MARKER).unwrap();
                *value = json.to_string().replace(&quoted, text).into_bytes();
            }
        }
        Damage::NoKey => record.key = None,
        Damage::NoValue => record.value = None,
        Damage::DropHeader(at) if !record.headers.is_empty() => {
            record.headers.remove(at.index(record.headers.len()));
        }
        Damage::RepeatHeader(at, value) if !record.headers.is_empty() => {
            let name = record.headers[at.index(record.headers.len())].0.clone();
            record.headers.push((name, value.clone()));
        }
        Damage::OtherHeader(name, value) => record.headers.push((name.clone(), value.clone())),
        _ => {}
    }
}

/// Stands in a JSON document where text goes that is no JSON.
const MARKER: &str = "\u{1}replace\u{1}";

fn collect_leaves<'a>(json: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match json {
        Value::Object(fields) => fields.values_mut().for_each(|field| collect_leaves(field, found)),
        Value::Array(items) => items.iter_mut().for_each(|item| collect_leaves(item, found)),
        leaf => found.push(leaf),
    }
}

/// What Postgres could not hold in `text`, `bigint` or `integer`.
fn unstorable(json: &Value) -> Option<String> {
    match json {
        Value::String(text) => (text.contains('\0') || text.len() > 4 * 128).then(|| text.clone()),
        Value::Number(number) => number.as_i64().is_none().then(|| number.to_string()),
        Value::Array(items) => items.iter().find_map(unstorable),
        Value::Object(fields) => match fields.get("quantity").and_then(Value::as_i64) {
            Some(quantity) if i32::try_from(quantity).is_err() => Some(quantity.to_string()),
            _ => fields.values().find_map(unstorable),
        },
        Value::Null | Value::Bool(_) => None,
    }
}

fn check(result: Result<Decoded, DecodeError>) -> Result<(), TestCaseError> {
    match result {
        Err(error) => prop_assert!(DecodeError::CODES.contains(&error.code()), "{error:?}"),
        Ok(decoded) => {
            let json: Value = serde_json::from_slice(&decoded.event.to_json()).unwrap();
            prop_assert_eq!(unstorable(&json), None);
            let headers = decoded.envelope.headers();
            prop_assert!(headers.iter().all(|(_, value)| !value.contains('\0')), "{:?}", headers);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_valid_record_comes_back_as_it_was_written((envelope, event) in record()) {
        let bytes = Bytes::of(&envelope, &event);

        let decoded = bytes.decode(event.event_type().topic());

        let expected = Decoded { envelope, event, replay_of: None };
        prop_assert_eq!(decoded.unwrap(), expected);
    }

    #[test]
    fn every_valid_event_fits_its_json_schema((_, event) in record()) {
        let validator = validator(event.event_type());
        let json: Value = serde_json::from_slice(&event.to_json()).unwrap();

        let errors: Vec<_> = validator.iter_errors(&json).map(|e| e.to_string()).collect();

        prop_assert!(errors.is_empty(), "{:?}", errors);
    }

    #[test]
    fn unknown_fields_and_headers_are_ignored(
        (envelope, event) in record(),
        name in "x_[a-z]{1,8}",
        text in any::<String>(),
    ) {
        let mut bytes = Bytes::of(&envelope, &event);
        let mut json: Value = serde_json::from_slice(&event.to_json()).unwrap();
        json[&name] = serde_json::json!({ "text": text, "deep": [[1.5e300, null, {}]] });
        bytes.value = Some(json.to_string().into_bytes());
        bytes.headers.insert(0, (name.into_bytes(), Some(text.into_bytes())));

        let decoded = bytes.decode(event.event_type().topic()).unwrap();

        prop_assert_eq!(decoded.event, event);
        prop_assert_eq!(decoded.envelope, envelope);
    }

    #[test]
    fn arbitrary_bytes_are_an_event_or_a_code(
        topic in select(Topic::ALL.to_vec()),
        key in proptest::option::of(vec(any::<u8>(), 0..60)),
        value in proptest::option::of(vec(any::<u8>(), 0..300)),
        headers in vec((header_name(), proptest::option::of(vec(any::<u8>(), 0..60))), 0..12),
    ) {
        check(Bytes { key, value, headers }.decode(topic))?;
    }

    #[test]
    fn a_damaged_record_is_an_event_that_can_be_stored_or_a_code(
        (envelope, event) in record(),
        damages in vec(damage(), 1..4),
    ) {
        let mut bytes = Bytes::of(&envelope, &event);
        damages.iter().for_each(|damage| inflict(&mut bytes, damage));

        check(bytes.decode(event.event_type().topic()))?;
    }

    #[test]
    fn a_record_on_another_topic_or_under_another_key_is_refused((envelope, event) in record()) {
        let mut bytes = Bytes::of(&envelope, &event);
        let home = event.event_type().topic();

        for topic in Topic::ALL.into_iter().filter(|topic| *topic != home) {
            prop_assert_eq!(bytes.decode(topic).unwrap_err().code(), "wrong_topic");
        }
        bytes.key = Some(uuid::Uuid::from_u128(!event.order_id().0.as_u128()).to_string().into_bytes());
        prop_assert_eq!(bytes.decode(home).unwrap_err().code(), "key_mismatch");
    }
}

fn validator(event_type: schemas::EventType) -> &'static jsonschema::Validator {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    static VALIDATORS: LazyLock<HashMap<schemas::EventType, jsonschema::Validator>> =
        LazyLock::new(|| {
            let build = |t| {
                jsonschema::options()
                    .should_validate_formats(true)
                    .build(&documents::json_schema(t))
            };
            schemas::EventType::ALL.into_iter().map(|t| (t, build(t).unwrap())).collect()
        });
    &VALIDATORS[&event_type]
}
