//! Documents for people and tools, generated from the types: JSON Schemas and AsyncAPI.
//!
//! They are committed beside this crate, and a test compares them with what this module says.

mod asyncapi;
mod json_schema;

use serde_json::Value;

use crate::EventType;

pub use asyncapi::asyncapi;
pub use json_schema::json_schema;

/// A generated document and where it is committed.
#[derive(Clone, Debug)]
pub struct Document {
    /// Path below this crate's folder.
    pub path: String,
    /// Content.
    pub json: Value,
}

/// Every generated document.
pub fn all() -> Vec<Document> {
    let schemas = EventType::ALL.into_iter().map(|event_type| Document {
        path: schema_path(event_type),
        json: json_schema(event_type),
    });
    let asyncapi = Document { path: "asyncapi.json".to_owned(), json: asyncapi() };
    schemas.chain([asyncapi]).collect()
}

/// Where the JSON Schema of `event_type` is committed, relative to the AsyncAPI document.
fn schema_path(event_type: EventType) -> String {
    format!("json/{}.json", event_type.as_str())
}
