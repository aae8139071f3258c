//! Prometheus from Debian's package, with the configuration, rules and alerts of `prometheus/` as they are: what to
//! scrape is in target files, written here for the stack's own servers and by [`write_targets`] for programs.

mod files;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::http;
use crate::install::{Installer, find_program};
use crate::options::Settings;
use crate::placement::{self, Account};
use crate::server::{Server, Site};
use crate::servers::shortened::{duration, shortened};

const PACKAGE: &str = "prometheus";

pub(crate) fn instances(settings: &Settings) -> Vec<Box<dyn Server>> {
    vec![Box::new(Prometheus { faster: settings.monitoring_faster })]
}

struct Prometheus {
    /// How many times as fast as in `prometheus/` time passes.
    faster: u32,
}

/// Job, server and role of what this stack itself can offer for scraping.
const OWN_TARGETS: [(&str, &str, &str); 5] = [
    ("prometheus", "prometheus", "client"),
    ("alertmanager", "alertmanager", "client"),
    ("pushgateway", "pushgateway", "client"),
    ("postgres", "postgres-exporter", "client"),
    ("temporal_server", "temporal", "metrics"),
];

impl Server for Prometheus {
    fn name(&self) -> String {
        "prometheus".to_owned()
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        vec![("client", 9090)]
    }

    fn account(&self) -> Option<&'static str> {
        Some("prometheus")
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        let present = || ["prometheus", "promtool"].iter().all(|p| find_program(p).is_some());
        installer.apt_server(PACKAGE, present)
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        let account = site.account.as_ref();
        for folder in ["rules", "alerts"] {
            // A rule that is no longer among ours must not stay in force.
            let folder = site.data_dir.join(folder);
            if folder.is_dir() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("remove {}", folder.display()))?;
            }
            placement::create_private(&folder, account)?;
        }
        placement::create_private(&site.data_dir.join("targets"), account)?;
        for (file, text) in files::FILES {
            let text = shortened(text, self.faster);
            placement::write_private(&site.data_dir.join(file), &text, account)?;
        }
        for (job, server, role) in OWN_TARGETS {
            if let Ok(port) = site.port_of(server, role) {
                let targets = [format!("127.0.0.1:{port}")];
                write_targets(&site.data_dir, account, job, &targets)?;
            }
        }
        Ok(())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = Command::new(PACKAGE);
        command
            .current_dir(&site.data_dir)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(flags(self.faster))
            .arg("--log.level=warn")
            .arg(format!("--web.listen-address=127.0.0.1:{}", site.port("client")?))
            .env("PROMETHEUS_CLUSTER", "local")
            .env("PROMETHEUS_REPLICA", "a");
        Ok(command)
    }

    fn probe(&self, site: &Site) -> Result<()> {
        http::get(site.port("client")?, "/-/ready").map(drop)
    }

    fn env(&self, site: &Site) -> Vec<(&'static str, String)> {
        let port = site.port("client").unwrap_or_default();
        vec![("PROMETHEUS_URL", format!("http://127.0.0.1:{port}"))]
    }
}

/// What belongs to the configuration and is no key of it.
pub(crate) fn flags(faster: u32) -> Vec<String> {
    let mut flags = vec![
        "--storage.tsdb.retention.time=15d".to_owned(),
        "--storage.tsdb.retention.size=50GB".to_owned(),
        "--enable-feature=exemplar-storage,expand-external-labels".to_owned(),
    ];
    if faster > 1 {
        // Lengths of time that are flags, at their defaults.
        flags.push(format!("--rules.alert.resend-delay={}", duration("1m", faster)));
        flags.push(format!("--query.lookback-delta={}", duration("5m", faster)));
    }
    flags
}

/// Replaces the targets of one job; Prometheus notices by itself.
pub(crate) fn write_targets(
    data_dir: &Path,
    account: Option<&Account>,
    job: &str,
    targets: &[String],
) -> Result<()> {
    if !files::CONFIG.contains(&format!("- job_name: {job}\n")) {
        bail!("prometheus.yml has no job {job}");
    }
    let text = serde_json::json!([{ "targets": targets }]).to_string();
    placement::write_private(&data_dir.join(format!("targets/{job}.json")), &text, account)
}
