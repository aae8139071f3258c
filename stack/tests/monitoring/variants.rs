//! Each variant of the configuration does what it is for, between real servers.

use std::fs;
use std::process::Command;

use crate::http::{await_some, json, query};
use crate::process::{Process, copy, hurry, targets};

#[test]
fn federation_takes_what_others_recorded_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &hurry);
    let below = Process::prometheus(dir.path(), "prometheus.yml", &[]);
    targets(&dir.path().join("targets/prometheus.json"), &[below.port]);
    targets(&dir.path().join("variants/targets/federation.json"), &[below.port]);

    let above = Process::prometheus(dir.path(), "variants/federation.yml", &[]);

    let objective = r#"slo:objective:ratio{slo="order-freshness", cluster="test"}"#;
    await_some("a recorded series", || query(above.port, objective).pop());
    await_some("the other's targets", || {
        query(above.port, r#"up{job="prometheus", cluster="test"} == 1"#).pop()
    });
    await_some("a raw series", || query(below.port, "prometheus_build_info").pop());
    assert_eq!(query(above.port, "prometheus_build_info"), Vec::<serde_json::Value>::new());
}

#[test]
fn remote_write_reaches_a_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    fs::create_dir(home.join("receiver")).unwrap();
    fs::write(home.join("receiver/none.yml"), "scrape_configs: []\n").unwrap();
    let receiver = Process::prometheus(
        &home.join("receiver"),
        "none.yml",
        &["--web.enable-remote-write-receiver"],
    );
    let address = format!("127.0.0.1:{}", receiver.port);
    copy(home, &|text| hurry(text).replace("127.0.0.1:9099", &address));
    let part = |file: &str| fs::read_to_string(home.join(file)).unwrap();
    let whole = part("prometheus.yml") + &part("variants/remote-write.yml");
    fs::write(home.join("whole.yml"), whole).unwrap();

    let sender = Process::prometheus(home, "whole.yml", &[]);
    targets(&home.join("targets/prometheus.json"), &[sender.port]);

    await_some("a recorded series", || {
        query(
            receiver.port,
            r#"slo:objective:ratio{slo="api-latency", cluster="test", replica="a"}"#,
        )
        .pop()
    });
    await_some("an alert", || query(receiver.port, r#"ALERTS{alertname="Watchdog"}"#).pop());
    await_some("a raw series", || query(sender.port, "prometheus_build_info").pop());
    await_some("a later push", || query(receiver.port, "up").pop());
    assert_eq!(query(receiver.port, "prometheus_build_info"), Vec::<serde_json::Value>::new());
}

#[test]
fn behind_tls_and_a_password_only_who_knows_them_can_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let password = "correct horse battery staple";
    // bcrypt of that password.
    let hash = "$2b$10$abcdefghijklmnopqrstuuGGgFFcYeueaAql8Z7U7CnCTRw4DR77W";
    copy(home, &|text| {
        let known = "$2y$10$0123456789012345678901uUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUU";
        hurry(text).replace(known, hash)
    });
    let variants = home.join("variants");
    certificate(&variants);
    fs::write(variants.join("scraper.password"), password).unwrap();
    let behind =
        Process::prometheus(home, "prometheus.yml", &["--web.config.file=variants/web.yml"]);
    targets(&variants.join("targets/prometheus.json"), &[behind.port]);

    let knows = Process::prometheus(home, "variants/tls.yml", &[]);
    await_some("a scrape by TLS and password", || query(knows.port, "up == 1").pop());

    fs::write(variants.join("scraper.password"), "wrong").unwrap();
    await_some("a wrong password is refused", || query(knows.port, "up == 0").pop());

    fs::write(variants.join("scraper.password"), password).unwrap();
    await_some("the right one is taken again", || query(knows.port, "up == 1").pop());
    let plain = home.join("plain");
    fs::create_dir_all(plain.join("targets")).unwrap();
    fs::copy(home.join("prometheus.yml"), plain.join("prometheus.yml")).unwrap();
    targets(&plain.join("targets/prometheus.json"), &[behind.port]);
    let plain = Process::prometheus(&plain, "prometheus.yml", &[]);
    await_some("plain HTTP is refused", || query(plain.port, "up == 0").pop());
}

/// Debian's Prometheus is built without Kubernetes: files play the API server, and the relabelling is the real one.
#[test]
fn pods_become_the_jobs_that_rules_know() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &|text| {
        text.replace(
            "kubernetes_sd_configs:\n      - role: pod",
            "file_sd_configs:\n      - files: [targets/pods.json]",
        )
        .replace(
            "kubernetes_sd_configs:\n        - role: pod",
            "file_sd_configs:\n        - files: [targets/pods.json]",
        )
    });
    let pod = |name: &str, part_of: &str, component: &str, port: &str, phase: &str| {
        serde_json::json!({ "targets": [format!("10.0.0.1:9{}", name.len())], "labels": {
            "__meta_kubernetes_namespace": "shop",
            "__meta_kubernetes_pod_name": name,
            "__meta_kubernetes_pod_phase": phase,
            "__meta_kubernetes_pod_container_port_name": port,
            "__meta_kubernetes_pod_label_app_kubernetes_io_part_of": part_of,
            "__meta_kubernetes_pod_label_app_kubernetes_io_component": component,
            "__meta_kubernetes_pod_label_app_kubernetes_io_name": component,
        }})
    };
    let ours = "order-pipeline";
    let pods = serde_json::json!([
        pod("api-1", ours, "order_processing_api", "metrics", "Running"),
        pod("api-1", ours, "order_processing_api", "http", "Running"),
        pod("payment-1", ours, "consumers", "metrics", "Running"),
        pod("payment-0-old", ours, "consumers", "metrics", "Succeeded"),
        pod("worker-1", ours, "worker", "metrics", "Running"),
        pod("worker-1", ours, "worker", "sdk-metrics", "Running"),
        pod("push", ours, "pushgateway", "metrics", "Running"),
        pod("somebody-else", "billing", "consumers", "metrics", "Running"),
        pod("am-1", "monitoring", "alertmanager", "web", "Running"),
    ]);
    fs::write(dir.path().join("variants/targets/pods.json"), pods.to_string()).unwrap();

    let prometheus = Process::prometheus(dir.path(), "variants/kubernetes.yml", &[]);

    let found = await_some("five targets", || {
        let answer = json(prometheus.port, "/api/v1/targets?state=active");
        let mut found: Vec<_> = answer["data"]["activeTargets"]
            .as_array()?
            .iter()
            .map(|target| {
                let label = |name: &str| target["labels"][name].as_str().unwrap_or("-").to_owned();
                format!("{} {} {}", label("job"), label("namespace_name"), label("pod"))
            })
            .collect();
        found.sort_unstable();
        (found.len() == 5).then_some(found)
    });
    assert_eq!(
        found,
        [
            "consumers shop payment-1",
            "order_processing_api shop api-1",
            "pushgateway - -",
            "temporal shop worker-1",
            "worker shop worker-1",
        ]
    );
    await_some("the Alertmanager", || {
        let answer = json(prometheus.port, "/api/v1/alertmanagers");
        (answer["data"]["activeAlertmanagers"].as_array()?.len() == 1).then_some(())
    });
}

fn certificate(dir: &std::path::Path) {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "server.key", "-out", "server.crt"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::copy(dir.join("server.crt"), dir.join("ca.crt")).unwrap();
}
