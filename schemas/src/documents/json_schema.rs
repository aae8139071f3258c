//! JSON Schema (draft 2020-12) of each event's data, from its Rust type.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::EventType;
use crate::inventory::{StockRejected, StockReleased, StockReserved};
use crate::orders::{CancelRequested, OrderPlaced};
use crate::payments::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use crate::saga::{OrderCancelled, RefundRequested, StockReleaseRequested};
use crate::shipments::{ShipmentArranged, ShipmentFailed};

/// Schema of the value of an event. Open: readers ignore fields they do not know.
pub fn json_schema(event_type: EventType) -> Value {
    let mut schema = match event_type {
        EventType::OrderPlaced => schema_of::<OrderPlaced>(),
        EventType::CancelRequested => schema_of::<CancelRequested>(),
        EventType::StockReserved => schema_of::<StockReserved>(),
        EventType::StockRejected => schema_of::<StockRejected>(),
        EventType::StockReleased => schema_of::<StockReleased>(),
        EventType::PaymentCaptured => schema_of::<PaymentCaptured>(),
        EventType::PaymentDeclined => schema_of::<PaymentDeclined>(),
        EventType::PaymentRefunded => schema_of::<PaymentRefunded>(),
        EventType::ShipmentArranged => schema_of::<ShipmentArranged>(),
        EventType::ShipmentFailed => schema_of::<ShipmentFailed>(),
        EventType::StockReleaseRequested => schema_of::<StockReleaseRequested>(),
        EventType::RefundRequested => schema_of::<RefundRequested>(),
        EventType::OrderCancelled => schema_of::<OrderCancelled>(),
    };
    schema["$id"] = format!("urn:order-pipeline:event:{}", event_type.as_str()).into();
    schema
}

fn schema_of<T: JsonSchema>() -> Value {
    // Inlined, because a file without references means the same to every tool and draft.
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
