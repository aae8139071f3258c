//! The committed documents say what the types say.

use std::fs;
use std::path::Path;

use serde_json::Value;

const HOW_TO_REGENERATE: &str = "UPDATE_SCHEMAS=1 cargo test --release -p schemas";

#[test]
fn the_committed_documents_are_what_the_types_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    let documents = schemas::documents::all();

    let mut drifted = Vec::new();
    for document in &documents {
        let path = root.join(&document.path);
        // Compared as JSON, because the order of keys depends on which other crates are built along.
        let committed: Option<Value> =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if committed.as_ref() == Some(&document.json) {
            continue;
        }
        if update {
            let text = serde_json::to_string_pretty(&document.json).unwrap() + "\n";
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        } else {
            drifted.push(document.path.as_str());
        }
    }

    assert!(
        drifted.is_empty(),
        "{drifted:?} differ from the types; run `{HOW_TO_REGENERATE}` and read the difference before you commit it"
    );
}

#[test]
fn no_schema_is_committed_for_an_event_type_that_is_gone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known: Vec<_> = schemas::documents::all().into_iter().map(|d| root.join(d.path)).collect();

    for entry in fs::read_dir(root.join("json")).unwrap() {
        let path = entry.unwrap().path();
        assert!(known.contains(&path), "{} belongs to no event type", path.display());
    }
}

#[test]
fn every_schema_is_valid_draft_2020_12_with_an_id_and_a_title() {
    for document in schemas::documents::all().iter().filter(|d| d.path.starts_with("json/")) {
        let json = &document.json;

        assert_eq!(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(json["$id"].is_string() && json["title"].is_string(), "{}", document.path);
        assert!(jsonschema::meta::is_valid(json), "{}", document.path);
    }
}

#[test]
fn every_reference_in_the_asyncapi_document_leads_somewhere() {
    let document = schemas::documents::asyncapi();
    let files: Vec<_> =
        schemas::documents::all().into_iter().map(|d| format!("./{}", d.path)).collect();
    let mut references = Vec::new();
    collect_references(&document, &mut references);

    assert!(!references.is_empty());
    for reference in references {
        let found = match reference.strip_prefix('#') {
            Some(pointer) => document.pointer(pointer).is_some(),
            None => files.iter().any(|file| file == reference),
        };
        assert!(found, "{reference}");
    }
}

fn collect_references<'a>(json: &'a Value, found: &mut Vec<&'a str>) {
    match json {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|field| collect_references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}
