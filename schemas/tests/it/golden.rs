//! Golden records: every shape ever published, as it was on the wire. They are read for as long as topics
//! may hold them, so a file is added with a new shape and then neither changes nor leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use schemas::codec::decode;
use schemas::{EventType, RawRecord, documents};
use serde_json::Value;
use uuid::Uuid;

/// Each golden file and the fingerprint of its bytes.
const PINNED: [(&str, &str); 20] = [
    (
        "inventory.stock-rejected.v1/001-insufficient-stock.json",
        "25df4916-9f05-5862-ae27-6eeea69096b2",
    ),
    ("inventory.stock-rejected.v1/002-unknown-sku.json", "d7c8aff6-b913-5581-b115-b4f03919079c"),
    (
        "inventory.stock-released.v1/001-payment-declined.json",
        "e891151f-e816-5373-be2d-a5a63dc7bc81",
    ),
    (
        "inventory.stock-released.v1/002-cancelled-before-reserved.json",
        "cc9bc04e-1c74-536a-a1f0-b55fc92a9ecb",
    ),
    (
        "inventory.stock-released.v1/003-shipment-failed.json",
        "d6907780-c42a-55de-96ba-8f7a37400d8d",
    ),
    ("inventory.stock-reserved.v1/001-two-items.json", "6b01f821-0122-512e-bfe5-39fc69659ef5"),
    ("orders.cancel-requested.v1/001-by-customer.json", "63e767d8-d959-5711-8cb0-4b83c403d6db"),
    ("orders.order-placed.v1/001-two-items.json", "bdf66dc8-3654-55a1-b200-5db4b1753f2b"),
    (
        "orders.order-placed.v1/002-free-item-and-no-trace.json",
        "2da77f9f-64e5-56f4-b4c7-5b1ebceedd00",
    ),
    (
        "orders.order-placed.v1/003-fields-of-a-later-version.json",
        "a1c00980-1f68-5f95-a017-62ab30699a82",
    ),
    ("payments.payment-captured.v1/001-card.json", "ff4c95aa-c2ac-5c43-a72f-8b613400feba"),
    ("payments.payment-declined.v1/001-card-declined.json", "cd36d567-a361-5d40-8f6f-44ee6a89a59d"),
    ("payments.payment-refunded.v1/001-whole-amount.json", "83ec002a-cf1b-5660-ae06-ec56c7ca00bd"),
    ("saga.order-cancelled.v1/001-cancelled.json", "14e92480-96fc-5b9d-8510-c613a2de393d"),
    ("saga.order-cancelled.v1/002-payment-declined.json", "8ea6dc63-211e-5173-9b41-a55d4a5060b2"),
    ("saga.refund-requested.v1/001-shipment-failed.json", "2c51de7e-0a7b-52e0-aa2a-d2af5adbe633"),
    (
        "saga.stock-release-requested.v1/001-deadline-exceeded.json",
        "e1bf9d47-496c-50c1-a3b9-87860b9fcb5c",
    ),
    (
        "shipments.shipment-arranged.v1/001-first-carrier.json",
        "f20cec5f-8cda-5d7b-ab0f-da9487b0892b",
    ),
    ("shipments.shipment-failed.v1/001-cancelled.json", "68abb7f0-fbb5-5352-83e1-9f385eeba587"),
    (
        "shipments.shipment-failed.v1/002-carrier-refused.json",
        "c3b751b4-e3bf-5009-864c-edf6abcae5b0",
    ),
];

#[derive(serde::Deserialize)]
struct Golden {
    key: String,
    headers: BTreeMap<String, String>,
    value: Value,
}

#[test]
fn golden_files_neither_change_nor_leave() {
    let found: Vec<_> = golden_files().map(|(name, bytes)| (name, fingerprint(&bytes))).collect();

    for (name, pinned) in PINNED {
        let actual = found.iter().find(|(found, _)| found == name);
        assert!(actual.is_some(), "golden/{name} is gone; topics may still hold its shape");
        assert_eq!(actual.unwrap().1, pinned, "golden/{name} changed; add a file instead");
    }
    for (name, fingerprint) in found {
        let pinned = PINNED.iter().any(|(pinned, _)| *pinned == name);
        assert!(pinned, "new golden file; pin it in PINNED: (\"{name}\", \"{fingerprint}\"),");
    }
}

#[test]
fn every_event_type_has_a_golden_file() {
    for event_type in EventType::ALL {
        let folder = format!("{}/", event_type.as_str());

        assert!(
            golden_files().any(|(name, _)| name.starts_with(&folder)),
            "golden/{folder} is empty"
        );
    }
}

#[test]
fn every_golden_record_still_decodes_and_loses_nothing_it_knows() {
    for (name, bytes) in golden_files() {
        let golden: Golden = serde_json::from_slice(&bytes).unwrap();
        let event_type = event_type_of(&name);

        let value = serde_json::to_vec(&golden.value).unwrap();
        let headers = golden.headers.iter().map(|(n, v)| (n.as_bytes(), Some(v.as_bytes())));
        let record = RawRecord { key: Some(golden.key.as_bytes()), value: Some(&value), headers };
        let decoded =
            decode(event_type.topic(), record).unwrap_or_else(|e| panic!("{name}: {e:?}"));

        assert_eq!(decoded.event.event_type(), event_type, "{name}");
        let written: Value = serde_json::from_slice(&decoded.event.to_json()).unwrap();
        assert!(
            is_part_of(&written, &golden.value),
            "{name}: {written} is not in {}",
            golden.value
        );
        let headers: BTreeMap<_, _> =
            decoded.envelope.headers().into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
        assert_eq!(headers, golden.headers, "{name}");
    }
}

#[test]
fn every_golden_record_fits_its_json_schema() {
    for (name, bytes) in golden_files() {
        let golden: Golden = serde_json::from_slice(&bytes).unwrap();
        let schema = documents::json_schema(event_type_of(&name));
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();

        let errors: Vec<_> = validator.iter_errors(&golden.value).map(|e| e.to_string()).collect();

        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// Name below `golden/` and bytes of each file.
fn golden_files() -> impl Iterator<Item = (String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let folders = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = folders
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files.into_iter()
}

fn event_type_of(name: &str) -> EventType {
    let (folder, _) = name.split_once('/').unwrap();
    EventType::from_wire(folder.as_bytes())
        .unwrap_or_else(|| panic!("golden/{folder} is no event type"))
}

fn fingerprint(bytes: &[u8]) -> String {
    Uuid::new_v5(&Uuid::nil(), bytes).to_string()
}

/// Whether `part` is `whole` without fields that readers ignore.
fn is_part_of(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, field)| whole.get(name).is_some_and(|other| is_part_of(field, other))),
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(a, b)| is_part_of(a, b))
        }
        (part, whole) => part == whole,
    }
}
