//! Temporal's development server: every service of it in one process, its data in one SQLite file, and
//! the web interface. It knows neither TLS nor accounts, so it listens on loopback alone.

mod program;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::Installer;
use crate::options::Settings;
use crate::server::{Server, Site};

pub(crate) fn instances(_: &Settings) -> Vec<Box<dyn Server>> {
    vec![Box::new(Temporal)]
}

struct Temporal;

const NAMESPACE: &str = "default";

impl Server for Temporal {
    fn name(&self) -> String {
        "temporal".to_owned()
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        // Without a choice of ours the last two are random, out of the range that clients use.
        vec![("client", 7233), ("ui", 8233), ("metrics", 9233), ("http", 7243)]
    }

    fn account(&self) -> Option<&'static str> {
        None
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        program::install(installer)
    }

    /// Nothing: the server makes its file, and its tables in one transaction.
    fn prepare(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = temporal(site)?;
        command
            .args(["server", "start-dev", "--ip", "127.0.0.1", "--namespace", NAMESPACE])
            .args(["--log-level", "warn", "--ui-disable-news-fetch", "--db-filename"])
            // Without a file everything is gone with the process.
            .arg(site.data_dir.join("temporal.db"))
            // Twice the workflows per second of SQLite's defaults; a crash of the process loses nothing.
            .args(["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]);
        for (flag, role) in [
            ("--port", "client"),
            ("--ui-port", "ui"),
            ("--metrics-port", "metrics"),
            ("--http-port", "http"),
        ] {
            command.args([flag, &site.port(role)?.to_string()]);
        }
        Ok(command)
    }

    /// The frontend listens before the namespace is there; a listing also needs history and visibility.
    fn probe(&self, site: &Site) -> Result<()> {
        let mut command = temporal(site)?;
        command.args(["workflow", "list", "--limit", "1", "--command-timeout", "3s"]).args([
            "--namespace",
            NAMESPACE,
            "--address",
            &address(site)?,
        ]);
        let output = command.output().context("start temporal")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}", said.lines().next().unwrap_or("temporal workflow list failed"));
        }
        Ok(())
    }

    fn env(&self, site: &Site) -> Vec<(&'static str, String)> {
        let port = |role| site.port(role).unwrap_or_default();
        vec![
            ("TEMPORAL_ADDRESS", format!("127.0.0.1:{}", port("client"))),
            ("TEMPORAL_UI_URL", format!("http://127.0.0.1:{}", port("ui"))),
        ]
    }
}

fn address(site: &Site) -> Result<String> {
    Ok(format!("127.0.0.1:{}", site.port("client")?))
}

/// The program, deaf to what its user configured for other servers.
fn temporal(site: &Site) -> Result<Command> {
    let mut command = Command::new(program::path()?);
    command
        .current_dir(&site.data_dir)
        .env("HOME", &site.data_dir)
        // Otherwise the server asks its makers once a day whether there is a newer one.
        .env("TEMPORAL_VERSION_CHECK_DISABLED", "1")
        .args(["--disable-config-file", "--disable-config-env"]);
    Ok(command)
}
