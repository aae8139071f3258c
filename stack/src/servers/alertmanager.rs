//! Alertmanager from Debian's package, alone (no gossip), with the configuration of `prometheus/alertmanager`.
//!
//! Only addresses, and lengths of time where they are to be shorter, differ from the file in the repository: where alerts go to is the environment's business, and
//! Alertmanager expands no variables.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::http;
use crate::install::{Installer, find_program};
use crate::options::Settings;
use crate::placement;
use crate::server::{Server, Site};
use crate::servers::shortened::shortened;
use crate::state::random_hex;

const PACKAGE: &str = "prometheus-alertmanager";

const CONFIG: &str = include_str!("../../../prometheus/alertmanager/alertmanager.yml");
const TEMPLATES: &str = include_str!("../../../prometheus/alertmanager/templates/orders.tmpl");

/// What `alertmanager.yml` reads its secrets from, relative to itself.
const SECRETS: [&str; 4] = ["pager-key", "smtp-password", "webhook-token", "chat-url"];

pub(crate) fn instances(settings: &Settings) -> Vec<Box<dyn Server>> {
    vec![Box::new(Alertmanager {
        receiver: settings.alert_receiver,
        mail: settings.alert_mail,
        faster: settings.monitoring_faster,
    })]
}

struct Alertmanager {
    /// Ports on loopback where pager, chat and webhook, and where mail is taken; those of the file when absent.
    receiver: Option<u16>,
    mail: Option<u16>,
    /// How many times as fast as in `prometheus/` time passes.
    faster: u32,
}

impl Server for Alertmanager {
    fn name(&self) -> String {
        "alertmanager".to_owned()
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        vec![("client", 9093)]
    }

    fn account(&self) -> Option<&'static str> {
        Some("prometheus")
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        installer.apt_server(PACKAGE, || find_program(PACKAGE).is_some())
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        let account = site.account.as_ref();
        let write = |file: &str, text: &str| {
            placement::write_private(&site.data_dir.join(file), text, account)
        };
        placement::create_private(&site.data_dir.join("templates"), account)?;
        placement::create_private(&site.data_dir.join("secrets"), account)?;
        write("templates/orders.tmpl", TEMPLATES)?;
        write("alertmanager.yml", &shortened(&self.addressed(CONFIG), self.faster))?;
        for secret in SECRETS {
            let file = format!("secrets/{secret}");
            if !site.data_dir.join(&file).exists() {
                write(&file, &self.secret(secret)?)?;
            }
        }
        Ok(())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = Command::new(PACKAGE);
        command
            // Secret files are looked up from where the server stands.
            .current_dir(&site.data_dir)
            .args(["--config.file=alertmanager.yml", "--storage.path=data", "--log.level=warn"])
            .args(["--cluster.listen-address="])
            .arg(format!("--web.listen-address=127.0.0.1:{}", site.port("client")?));
        Ok(command)
    }

    fn probe(&self, site: &Site) -> Result<()> {
        http::get(site.port("client")?, "/-/ready").map(drop)
    }

    fn env(&self, site: &Site) -> Vec<(&'static str, String)> {
        let port = site.port("client").unwrap_or_default();
        vec![("ALERTMANAGER_URL", format!("http://127.0.0.1:{port}"))]
    }
}

impl Alertmanager {
    fn receiver(&self) -> u16 {
        self.receiver.unwrap_or(9095)
    }

    fn addressed(&self, config: &str) -> String {
        config
            .replace("127.0.0.1:9095", &format!("127.0.0.1:{}", self.receiver()))
            .replace("127.0.0.1:1025", &format!("127.0.0.1:{}", self.mail.unwrap_or(1025)))
    }

    /// A chat's address is its secret; the others are only compared.
    fn secret(&self, name: &str) -> Result<String> {
        match name {
            "chat-url" => Ok(format!("http://127.0.0.1:{}/chat", self.receiver())),
            _ => random_hex(16),
        }
    }
}

/// The token that Alertmanager shows to the webhook, for a test that wants to see it.
pub(crate) fn webhook_token(data_dir: &Path) -> Result<String> {
    let file = data_dir.join("secrets/webhook-token");
    fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
}
