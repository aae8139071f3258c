//! The OpenAPI 3.1 document, made from the handlers.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Order pipeline",
        description = "Places orders and tells how far they are. Errors are application/problem+json with a stable `code`."
    ),
    paths(
        super::place::place,
        super::batch::place,
        super::read::order,
        super::read::events,
        super::read::list,
        super::cancel::cancel,
        super::health::live,
        super::health::ready,
        serve,
    ),
    components(schemas(super::batch::LineResult)),
    tags(
        (name = "orders", description = "Place orders, follow them, cancel them"),
        (name = "health", description = "For load balancers and operators"),
    )
)]
struct Document;

/// The document, as JSON.
pub fn document() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        let mut document = Document::openapi();
        document.servers = Some(vec![utoipa::openapi::Server::new("/")]);
        let mut document = serde_json::to_value(document).expect("a document always serialises");
        leave_out_null(&mut document);
        let mut json = serde_json::to_string_pretty(&document).expect("a value always serialises");
        json.push('\n');
        json
    });
    &JSON
}

/// What is optional here is left out, never null; utoipa describes every `Option` as both.
fn leave_out_null(schema: &mut Value) {
    match schema {
        Value::Array(values) => values.iter_mut().for_each(leave_out_null),
        Value::Object(members) => {
            members.values_mut().for_each(leave_out_null);
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [name] = types.as_slice() {
                    members["type"] = name.clone();
                }
            }
            if let Some(Value::Array(choices)) = members.get_mut("oneOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    members.remove("oneOf");
                    members.extend(only);
                }
            }
        }
        _ => {}
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", operation_id = "openapi",
    responses((status = 200, description = "The OpenAPI document", body = Object)))]
pub(super) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}
