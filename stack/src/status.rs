//! What a stack looks like from outside. Reads, never changes.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::process::Liveness;
use crate::state::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Running,
    /// Held by a STOP signal.
    Frozen,
    /// Gone without having been asked.
    Dead,
    /// Ended on request, with its data kept.
    Stopped,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    pub name: String,
    pub condition: Condition,
    pub pid: Option<i32>,
    pub endpoint: String,
    pub uptime_seconds: Option<u64>,
    pub rss_kib: Option<u64>,
    pub data_dir: std::path::PathBuf,
    pub log: std::path::PathBuf,
}

pub(crate) fn of(name: &str, record: &Record) -> ServerStatus {
    let condition = match record.process.as_ref().map(|process| process.liveness()) {
        None => Condition::Stopped,
        Some(Liveness::Running) => Condition::Running,
        Some(Liveness::Stopped) => Condition::Frozen,
        Some(Liveness::Dead) => Condition::Dead,
    };
    let alive = matches!(condition, Condition::Running | Condition::Frozen);
    let process = record.process.as_ref().filter(|_| alive);
    ServerStatus {
        name: name.to_owned(),
        condition,
        pid: process.map(|process| process.pid),
        endpoint: record
            .ports
            .get("client")
            .map(|port| format!("127.0.0.1:{port}"))
            .unwrap_or_default(),
        uptime_seconds: process.and_then(|p| p.uptime()).map(|uptime| uptime.as_secs()),
        rss_kib: process.map(|process| process.rss_kib()),
        data_dir: record.data_dir.clone(),
        log: record.log.clone(),
    }
}

/// For people; programs read the JSON.
pub fn table(servers: &[ServerStatus]) -> String {
    let mut text = format!(
        "{:<17} {:<8} {:>8} {:<22} {:>10} {:>9}\n",
        "NAME", "STATE", "PID", "ENDPOINT", "UPTIME", "RSS"
    );
    for server in servers {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let row = writeln!(
            text,
            "{:<17} {:<8} {:>8} {:<22} {:>10} {:>9}",
            server.name,
            format!("{:?}", server.condition).to_lowercase(),
            or_dash(server.pid.map(|pid| pid.to_string())),
            server.endpoint,
            or_dash(server.uptime_seconds.map(|s| age(Duration::from_secs(s)))),
            or_dash(server.rss_kib.map(|kib| format!("{} MiB", kib / 1024))),
        );
        row.expect("writing to a string does not fail");
    }
    text
}

fn age(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}
