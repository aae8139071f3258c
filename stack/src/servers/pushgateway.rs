//! Pushgateway from Debian's package: keeps what batch jobs push until Prometheus has read it, across restarts too.

use std::process::Command;

use anyhow::Result;

use crate::http;
use crate::install::{Installer, find_program};
use crate::options::Settings;
use crate::server::{Server, Site};

const PACKAGE: &str = "prometheus-pushgateway";

pub(crate) fn instances(_: &Settings) -> Vec<Box<dyn Server>> {
    vec![Box::new(Pushgateway)]
}

struct Pushgateway;

impl Server for Pushgateway {
    fn name(&self) -> String {
        "pushgateway".to_owned()
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        vec![("client", 9091)]
    }

    fn account(&self) -> Option<&'static str> {
        Some("prometheus")
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        installer.apt_server(PACKAGE, || find_program(PACKAGE).is_some())
    }

    /// Nothing: it has no configuration.
    fn prepare(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = Command::new(PACKAGE);
        command
            .current_dir(&site.data_dir)
            .arg(format!("--web.listen-address=127.0.0.1:{}", site.port("client")?))
            .args(["--persistence.file=groups", "--persistence.interval=5s", "--log.level=warn"]);
        Ok(command)
    }

    fn probe(&self, site: &Site) -> Result<()> {
        http::get(site.port("client")?, "/-/ready").map(drop)
    }

    fn env(&self, site: &Site) -> Vec<(&'static str, String)> {
        let port = site.port("client").unwrap_or_default();
        vec![("PUSHGATEWAY_URL", format!("http://127.0.0.1:{port}"))]
    }
}
