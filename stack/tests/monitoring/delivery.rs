//! Alerts handed to a real Alertmanager with the configuration of `prometheus/alertmanager`, and what arrives at the
//! other ends. Only addresses, waiting times and secrets are the test's own.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::http::{await_some, json, send};
use crate::process::{Process, copy};
use crate::sink::{self, Request, Sink};

struct Ends {
    alertmanager: Process,
    requests: Sink<Request>,
    mails: Sink<String>,
    _dir: tempfile::TempDir,
}

fn start() -> Ends {
    let dir = tempfile::tempdir().unwrap();
    let (requests, mails) = (sink::requests(), sink::mails());
    copy(dir.path(), &|text| {
        text.replace("127.0.0.1:9095", &format!("127.0.0.1:{}", requests.port))
            .replace("127.0.0.1:1025", &format!("127.0.0.1:{}", mails.port))
            .replace("group_wait: 15s", "group_wait: 1s")
            .replace("group_wait: 5s", "group_wait: 1s")
            .replace("group_interval: 2m", "group_interval: 1s")
    });
    let home = dir.path().join("alertmanager");
    secrets(&home, requests.port);
    Ends { alertmanager: Process::alertmanager(&home), requests, mails, _dir: dir }
}

fn secrets(home: &Path, port: u16) {
    fs::create_dir(home.join("secrets")).unwrap();
    let chat = format!("http://127.0.0.1:{port}/chat");
    for (name, secret) in [
        ("chat-url", chat.as_str()),
        ("pager-key", "the-pager-key"),
        ("webhook-token", "the-token"),
    ] {
        fs::write(home.join("secrets").join(name), secret).unwrap();
    }
}

impl Ends {
    fn alert(&self, labels: Value, ended: bool) {
        let summary = format!("About {}.", labels["alertname"].as_str().unwrap());
        let mut alert = json!({
            "labels": labels,
            "annotations": {
                "summary": summary,
                "description": "Group orders.payment: 3m 20s behind.",
                "runbook_url": "prometheus/runbooks/X.md",
            },
            "startsAt": "2020-01-01T00:00:00Z",
        });
        if ended {
            alert["endsAt"] = json!("2020-01-01T00:01:00Z");
        }
        let body = json!([alert]).to_string();
        let (status, said) = send(self.alertmanager.port, "POST", "/api/v2/alerts", &body).unwrap();
        assert_eq!(status, 200, "{said}");
    }

    fn request(&self, path: &str, holds: &str) -> Request {
        await_some(&format!("{path} with {holds}"), || {
            let all = self.requests.all();
            all.into_iter().find(|request| request.path == path && request.body.contains(holds))
        })
    }
}

#[test]
fn each_severity_reaches_its_people_word_for_word() {
    let ends = start();
    let labels = |name: &str, severity: &str| json!({"alertname": name, "severity": severity, "cluster": "a"});
    ends.alert(labels("ConsumerLagHigh", "critical"), false);
    ends.alert(labels("DeadLetters", "warning"), false);
    ends.alert(labels("LowInventory", "info"), false);

    let page = ends.request("/pager", "ConsumerLagHigh").json();
    assert_eq!(page["routing_key"], "the-pager-key");
    assert_eq!(page["payload"]["severity"], "critical");
    assert_eq!(page["payload"]["summary"], "[FIRING:1] ConsumerLagHigh: About ConsumerLagHigh.");
    assert_eq!(
        page["payload"]["custom_details"]["text"],
        "Group orders.payment: 3m 20s behind.\nWhat to do: prometheus/runbooks/X.md"
    );

    let chat = ends.request("/chat", "DeadLetters").json();
    assert_eq!(chat["channel"], "#orders");
    assert_eq!(chat["attachments"][0]["title"], "[FIRING:1] DeadLetters: About DeadLetters.");

    let mail = await_some("a mail", || ends.mails.all().into_iter().next());
    assert!(mail.contains("Subject: [FIRING:1] LowInventory: About LowInventory."), "{mail}");
    assert!(mail.contains("To: orders@localhost"), "{mail}");
    assert!(mail.contains("Group orders.payment: 3m 20s behind."), "{mail}");
    assert!(mail.contains("What to do: prometheus/runbooks/X.md"), "{mail}");

    for name in ["ConsumerLagHigh", "DeadLetters", "LowInventory"] {
        let told = ends.request("/alerts", name);
        assert!(told.head.contains("Authorization: Bearer the-token"), "{}", told.head);
    }
    let wrong = |path: &str, name: &str| {
        ends.requests
            .all()
            .iter()
            .any(|request| request.path == path && request.body.contains(name))
    };
    assert!(!wrong("/pager", "DeadLetters") && !wrong("/chat", "ConsumerLagHigh"));
}

#[test]
fn the_end_of_an_alert_is_told_too() {
    let ends = start();
    let labels = json!({"alertname": "DeadLetters", "severity": "warning", "cluster": "a"});
    ends.alert(labels.clone(), false);
    ends.request("/chat", "[FIRING:1] DeadLetters");

    ends.alert(labels, true);

    let chat = ends.request("/chat", "[RESOLVED] DeadLetters").json();
    let text = chat["attachments"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("Resolved: Group orders.payment"), "{text}");
}

#[test]
fn a_dead_broker_silences_what_follows_from_it_in_its_cluster_only() {
    let ends = start();
    let lag = |cluster: &str| json!({"alertname": "ConsumerLagHigh", "severity": "critical", "depends": "kafka,postgres", "cluster": cluster});
    ends.alert(
        json!({"alertname": "KafkaBrokerDown", "severity": "critical", "cluster": "a"}),
        false,
    );
    ends.alert(lag("a"), false);
    ends.alert(lag("b"), false);
    ends.alert(json!({"alertname": "RecordsLost", "severity": "critical", "cluster": "a"}), false);

    let states = await_some("four alerts are judged", || {
        let alerts = json(ends.alertmanager.port, "/api/v2/alerts");
        let states: Vec<_> = alerts
            .as_array()?
            .iter()
            .map(|alert| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let labels = &alert["labels"];
                (
                    text(&labels["alertname"]),
                    text(&labels["cluster"]),
                    text(&alert["status"]["state"]),
                )
            })
            .collect();
        let judged = states.iter().all(|(_, _, state)| state != "unprocessed");
        // One that stands alone may have been judged before its source came.
        let silenced = states.iter().any(|(_, _, state)| state == "suppressed");
        (states.len() == 4 && judged && silenced).then_some(states)
    });

    let silenced: Vec<_> = states.iter().filter(|(_, _, state)| state == "suppressed").collect();
    assert_eq!(silenced.len(), 1, "{states:?}");
    assert_eq!((silenced[0].0.as_str(), silenced[0].1.as_str()), ("ConsumerLagHigh", "a"));
    ends.request("/pager", "KafkaBrokerDown");
    ends.request("/pager", "RecordsLost");
}
