//! `deploy/` knows every stage, and has the rules of `prometheus/`: `deploy/kubernetes/rules` is made from `rules/` and `alerts/`, one PrometheusRule per file:
//! `UPDATE_RULES=1 cargo test --release -p stack --test monitoring kubernetes`.

use std::collections::BTreeMap;
use std::fs;

use crate::board::stages;
use crate::process::root;

/// File name and text.
fn rendered() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for folder in ["rules", "alerts"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{folder}-{}", path.file_stem().unwrap().to_str().unwrap());
            let spec: String = fs::read_to_string(&path)
                .unwrap()
                .lines()
                .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
                .collect();
            let text = format!(
                "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: order-{name}\nspec:\n{spec}"
            );
            files.insert(format!("{name}.yaml"), text);
        }
    }
    let list: String = files.keys().map(|file| format!("  - {file}\n")).collect();
    let whole = format!(
        "# Made from prometheus/rules and prometheus/alerts by a test of the crate stack.\n\
         apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{list}"
    );
    files.insert("kustomization.yaml".to_owned(), whole);
    files
}

#[test]
fn kubernetes_has_the_same_rules() {
    let folder = root().join("../deploy/kubernetes/rules");
    let expected = rendered();
    if std::env::var_os("UPDATE_RULES").is_some() {
        for (file, text) in &expected {
            fs::write(folder.join(file), text).unwrap();
        }
    }

    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        found.insert(entry.file_name().into_string().unwrap(), text);
    }

    let files = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(files(&found), files(&expected), "UPDATE_RULES=1 writes them, and deletes none");
    for (file, text) in expected {
        assert!(
            found[&file] == text,
            "{file} is not what prometheus/ says: UPDATE_RULES=1 writes it"
        );
    }
}

#[test]
fn every_stage_runs_in_containers_and_on_kubernetes() {
    let read = |path: &str| fs::read_to_string(root().join("..").join(path)).unwrap();
    let compose = read("docker-compose.yml");
    let targets = read("deploy/compose/targets/consumers.json");
    let base = read("deploy/kubernetes/base/kustomization.yaml");

    for stage in stages() {
        assert!(
            compose.contains(&format!("run, --stage, {stage}]")),
            "docker-compose.yml: {stage}"
        );
        assert!(
            targets.contains(&format!("\"{stage}:9102\"")),
            "targets of docker-compose: {stage}"
        );
        assert!(
            base.contains(&format!("- ../stages/{stage}\n")),
            "deploy/kubernetes/base: {stage}"
        );
        let named = read(&format!("deploy/kubernetes/stages/{stage}/kustomization.yaml"));
        assert!(named.contains(&format!("app.kubernetes.io/name: {stage}}}")), "{stage}: {named}");
    }
}
