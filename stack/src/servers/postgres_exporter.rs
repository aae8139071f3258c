//! The Postgres exporter from Debian's package, reading the stack's Postgres as the role `monitoring`, which may
//! see statistics and no data.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::http;
use crate::install::{Installer, find_program};
use crate::options::Settings;
use crate::placement;
use crate::server::{Server, Site};
use crate::servers::postgres;

const PACKAGE: &str = "prometheus-postgres-exporter";

pub(crate) fn instances(_: &Settings) -> Vec<Box<dyn Server>> {
    vec![Box::new(PostgresExporter)]
}

struct PostgresExporter;

impl Server for PostgresExporter {
    fn name(&self) -> String {
        "postgres-exporter".to_owned()
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        vec![("client", 9187)]
    }

    fn account(&self) -> Option<&'static str> {
        Some("prometheus")
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        installer.apt_server(PACKAGE, || find_program(PACKAGE).is_some())
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        site.port_of("postgres", "client").context("the exporter needs Postgres in the stack")?;
        let password = postgres::monitoring_password(&site.state_dir)?;
        placement::write_private(&site.data_dir.join("password"), &password, site.account.as_ref())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let postgres = site.port_of("postgres", "client")?;
        let mut command = Command::new(PACKAGE);
        command
            .current_dir(&site.data_dir)
            .arg(format!("--web.listen-address=127.0.0.1:{}", site.port("client")?))
            .arg("--log.level=warn")
            .env("DATA_SOURCE_URI", format!("127.0.0.1:{postgres}/postgres?sslmode=disable"))
            .env("DATA_SOURCE_USER", postgres::MONITORING)
            .env("DATA_SOURCE_PASS_FILE", site.data_dir.join("password"));
        Ok(command)
    }

    /// It answers without its database too, and then says so.
    fn probe(&self, site: &Site) -> Result<()> {
        let metrics = http::get(site.port("client")?, "/metrics")?;
        if !metrics.lines().any(|line| line == "pg_up 1") {
            bail!("it cannot read Postgres yet");
        }
        Ok(())
    }

    fn env(&self, _: &Site) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
