//! The AsyncAPI 3.1 document: a channel per topic, a message per event type, an operation per component
//! and topic. Built by hand from the catalogue, because no generator knows Kafka's bindings.

use serde_json::{Map, Value, json};

use super::json_schema::json_schema;
use super::schema_path;
use crate::codec::{CONTENT_TYPE, SPEC_VERSION};
use crate::components::{COMPONENTS, Component};
use crate::topic::DEFAULT_PARTITIONS;
use crate::{EventType, Topic, TopicPrefix};

/// Version of AsyncAPI's Kafka binding that the document follows.
const BINDING_VERSION: &str = "0.5.0";
/// Name of the message on the topic `dead-letters`.
const DEAD_LETTER: &str = "dead-letter";

/// The document. Its payloads refer to the JSON Schemas beside it.
pub fn asyncapi() -> Value {
    json!({
        "asyncapi": "3.1.0",
        "id": "urn:order-pipeline",
        "info": {
            "title": "Order pipeline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Topics of the order pipeline. Encoding: CloudEvents 1.0, Kafka binding, binary mode. \
                Key: the order id. Readers ignore fields they do not know; a change is additive and optional, or a \
                new event type. The same event may be delivered more than once, always under the same ce_id. A \
                prefix may stand in front of every topic and consumer group.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" }
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": object(Topic::ALL.map(|topic| (topic.name().to_owned(), channel(topic)))),
        "operations": operations(),
        "components": {
            "messages": messages(),
            "schemas": { "cloudEventHeaders": cloud_event_headers(), "orderId": order_id() }
        }
    })
}

fn channel(topic: Topic) -> Value {
    let messages = message_names(topic).into_iter();
    json!({
        "address": topic.name(),
        "description": description(topic),
        "messages": object(messages.map(|name| {
            let reference = json!({ "$ref": format!("#/components/messages/{name}") });
            (name, reference)
        })),
        "bindings": {
            "kafka": {
                "topic": topic.name(),
                "partitions": DEFAULT_PARTITIONS,
                "bindingVersion": BINDING_VERSION
            }
        }
    })
}

const fn description(topic: Topic) -> &'static str {
    match topic {
        Topic::Orders => "Orders placed and cancellations requested.",
        Topic::Inventory => "What became of an order's stock.",
        Topic::Payments => "What became of an order's payment.",
        Topic::Shipments => "What became of an order's shipment.",
        Topic::Saga => "What an order's supervision asks for.",
        Topic::DeadLetters => "Records that can never be applied, as they came.",
    }
}

fn message_names(topic: Topic) -> Vec<String> {
    match topic {
        Topic::DeadLetters => vec![DEAD_LETTER.to_owned()],
        _ => EventType::ALL
            .into_iter()
            .filter(|event_type| event_type.topic() == topic)
            .map(|event_type| event_type.as_str().to_owned())
            .collect(),
    }
}

fn messages() -> Value {
    let events =
        EventType::ALL.map(|event_type| (event_type.as_str().to_owned(), message(event_type)));
    object(events.into_iter().chain([(DEAD_LETTER.to_owned(), dead_letter())]))
}

fn message(event_type: EventType) -> Value {
    let schema = json_schema(event_type);
    json!({
        "name": event_type.as_str(),
        "title": schema["title"],
        "summary": schema["description"],
        "contentType": CONTENT_TYPE,
        "headers": {
            "allOf": [
                { "$ref": "#/components/schemas/cloudEventHeaders" },
                { "type": "object", "properties": { "ce_type": { "const": event_type.as_str() } } }
            ]
        },
        "payload": { "$ref": format!("./{}", schema_path(event_type)) },
        "bindings": key_binding(json!({ "$ref": "#/components/schemas/orderId" }))
    })
}

/// Any bytes: what makes a record a dead letter may be its key, its headers or its value.
fn dead_letter() -> Value {
    json!({
        "name": DEAD_LETTER,
        "title": "DeadLetter",
        "summary": "The original key, value and headers, plus dlq- headers that say where it came from and why.",
        "headers": { "type": "object" },
        "payload": {},
        "bindings": key_binding(json!({}))
    })
}

fn key_binding(key: Value) -> Value {
    json!({ "kafka": { "key": key, "bindingVersion": BINDING_VERSION } })
}

fn order_id() -> Value {
    json!({ "type": "string", "format": "uuid", "description": "The order id, lower case, with hyphens." })
}

fn cloud_event_headers() -> Value {
    json!({
        "type": "object",
        "required": ["content-type", "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time"],
        "properties": {
            "content-type": { "const": CONTENT_TYPE },
            "ce_specversion": { "const": SPEC_VERSION },
            "ce_id": {
                "type": "string", "format": "uuid",
                "description": "Identifies the fact; the same fact told twice carries the same id."
            },
            "ce_type": { "type": "string" },
            "ce_source": {
                "type": "string", "format": "uri-reference", "minLength": 1, "maxLength": 256,
                "description": "The component that tells the fact."
            },
            "ce_time": {
                "type": "string", "format": "date-time", "description": "When the fact happened."
            },
            "traceparent": { "type": "string", "description": "W3C Trace Context." }
        }
    })
}

fn operations() -> Value {
    let mut operations = Map::new();
    for component in &COMPONENTS {
        for topic in Topic::ALL {
            let sends: Vec<_> = component.sends_on(topic).map(EventType::as_str).collect();
            if !sends.is_empty() {
                operations.insert(name(component, "send", topic), send(component, topic, &sends));
            }
            let receives: Vec<_> = component.receives_from(topic).map(EventType::as_str).collect();
            if !receives.is_empty() {
                operations.insert(
                    name(component, "receive", topic),
                    receive(component, topic, &receives),
                );
            }
        }
        if component.is_stage {
            let topic = Topic::DeadLetters;
            operations
                .insert(name(component, "send", topic), send(component, topic, &[DEAD_LETTER]));
        }
    }
    Value::Object(operations)
}

fn name(component: &Component, action: &str, topic: Topic) -> String {
    format!("{}.{action}.{}", component.name, topic.name())
}

fn send(component: &Component, topic: Topic, messages: &[&str]) -> Value {
    json!({
        "action": "send",
        "summary": component.summary,
        "channel": { "$ref": channel_reference(topic) },
        "messages": message_references(topic, messages)
    })
}

fn receive(component: &Component, topic: Topic, messages: &[&str]) -> Value {
    let group = TopicPrefix::default().group(component.name);
    json!({
        "action": "receive",
        "summary": component.summary,
        "channel": { "$ref": channel_reference(topic) },
        "messages": message_references(topic, messages),
        "bindings": {
            "kafka": { "groupId": { "type": "string", "enum": [group] }, "bindingVersion": BINDING_VERSION }
        }
    })
}

fn channel_reference(topic: Topic) -> String {
    format!("#/channels/{}", topic.name())
}

fn message_references(topic: Topic, messages: &[&str]) -> Vec<Value> {
    let channel = channel_reference(topic);
    messages.iter().map(|name| json!({ "$ref": format!("{channel}/messages/{name}") })).collect()
}

fn object(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(entries.into_iter().collect())
}
