//! The order of the crates (ARCHITECTURE.md, invariant 1), read from every Cargo.toml of the workspace by Cargo itself.

use std::process::Command;

use serde_json::{Value, json};

/// A crate of the workspace and those it may depend on. What is not listed has no place yet.
const LINE: [(&str, &[&str]); 7] = [
    ("schemas", &[]),
    ("telemetry", &[]),
    ("producers", &["schemas", "telemetry"]),
    ("workflows", &["schemas", "telemetry"]),
    ("consumers", &["schemas", "telemetry", "producers", "workflows"]),
    ("stack", &[]),
    ("load", &["schemas", "telemetry", "producers", "workflows", "consumers", "stack"]),
];

/// Their tests may bring up real servers with `stack`.
const TESTED_ON_SERVERS: [&str; 3] = ["producers", "workflows", "consumers"];

#[test]
fn crates_depend_on_each_other_only_along_the_line() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert!(metadata["packages"].as_array().unwrap().len() >= 6, "{metadata}");
    assert_eq!(not_allowed(&metadata), [""; 0]);
}

#[test]
fn an_arrow_too_many_is_named() {
    let one = |name: &str, dependency: &str, kind: Value| {
        let dependencies = json!([
            { "name": "serde", "kind": null },
            { "name": dependency, "path": "/somewhere", "kind": kind },
        ]);
        not_allowed(&json!({ "packages": [{ "name": name, "dependencies": dependencies }] }))
    };

    assert_eq!(one("producers", "consumers", json!(null)), ["producers -> consumers"]);
    assert_eq!(one("stack", "schemas", json!("dev")), ["stack -> schemas"]);
    assert_eq!(one("consumers", "stack", json!(null)), ["consumers -> stack"]);
    assert_eq!(one("workflows", "producers", json!("build")), ["workflows -> producers"]);
    assert_eq!(one("gateway", "schemas", json!(null)), ["gateway -> schemas"]);
    assert_eq!(one("consumers", "stack", json!("dev")), [""; 0]);
    assert_eq!(one("consumers", "workflows", json!(null)), [""; 0]);
}

/// Arrows between crates of the workspace that the line does not have.
fn not_allowed(metadata: &Value) -> Vec<String> {
    let mut arrows = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let allowed = LINE.iter().find(|(known, _)| *known == name).map_or(&[][..], |line| line.1);
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let in_tests = dependency["kind"] == "dev"
                && other == "stack"
                && TESTED_ON_SERVERS.contains(&name);
            // Crates of the workspace are the ones that have a path.
            if dependency["path"].is_string() && !allowed.contains(&other) && !in_tests {
                arrows.push(format!("{name} -> {other}"));
            }
        }
    }
    arrows
}
