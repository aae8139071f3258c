//! Apache Kafka in KRaft mode, from its Maven artifacts: one node that is broker and controller, or
//! three of them. Creates no topics.

mod config;
mod jars;
mod request;
mod secure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::{Installer, find_program};
use crate::options::Settings;
use crate::placement;
use crate::server::{Server, Site};

pub(crate) fn instances(settings: &Settings) -> Vec<Box<dyn Server>> {
    let nodes = settings.brokers;
    let node = |id| Kafka { id, nodes, secure: settings.kafka_secure.clone() };
    (1..=nodes).map(|id| Box::new(node(id)) as Box<dyn Server>).collect()
}

/// One node of a cluster of `nodes`.
struct Kafka {
    id: u8,
    nodes: u8,
    /// Certificates and password of the second listener, where there is one.
    secure: Option<PathBuf>,
}

impl Kafka {
    fn name_of(&self, id: u8) -> String {
        match self.nodes {
            1 => "kafka".to_owned(),
            _ => format!("kafka-{id}"),
        }
    }

    fn peers(&self, site: &Site, role: &str) -> Result<Vec<(u8, u16)>> {
        (1..=self.nodes).map(|id| Ok((id, site.port_of(&self.name_of(id), role)?))).collect()
    }
}

impl Server for Kafka {
    fn name(&self) -> String {
        self.name_of(self.id)
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        // The controller keeps away from 9093, where Alertmanager is at home.
        let step = u16::from(self.id - 1) * 100;
        let secure = self.secure.iter().map(|_| ("secure", 9094 + step));
        [("client", 9092 + step), ("controller", 19_093 + step)].into_iter().chain(secure).collect()
    }

    fn account(&self) -> Option<&'static str> {
        None
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        jars::install(installer)
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        let node = config::Node {
            id: self.id,
            client_port: site.port("client")?,
            voters: self.peers(site, "controller")?,
            log_dir: &site.data_dir.join("log"),
        };
        let mut text = config::render(&node);
        if let Some(folder) = &self.secure {
            let secure = secure::Secure {
                port: site.port("secure")?,
                client_port: site.port("client")?,
                controller_port: site.port("controller")?,
                folder,
            };
            text += &secure.render()?;
        }
        placement::write_private(&properties(site), &text, None)?;
        let tmp = site.data_dir.join("tmp");
        fs::create_dir_all(&tmp).with_context(|| format!("create {}", tmp.display()))?;
        format(site)
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = java(site)?;
        match self.nodes {
            // One broker may use both cores for a collection.
            1 => command.args(["-Xms512m", "-Xmx1g", "-XX:+UseParallelGC"]),
            // Three share two cores: each collects alone, and all fit beside the rest of the stack.
            _ => command.args(["-Xms384m", "-Xmx384m", "-XX:+UseSerialGC"]),
        };
        command.args(["-XX:+ExitOnOutOfMemoryError", "kafka.Kafka"]).arg(properties(site));
        Ok(command)
    }

    fn probe(&self, site: &Site) -> Result<()> {
        let brokers = request::brokers(site.port("client")?)?;
        // A broker answers before it is registered and unfenced, and cannot be given a partition yet.
        if !brokers.contains(&i32::from(self.id)) {
            bail!("broker {} is not part of the cluster yet, which has {brokers:?}", self.id);
        }
        Ok(())
    }

    fn env(&self, site: &Site) -> Vec<(&'static str, String)> {
        let addresses = |role: &str| {
            let peers = self.peers(site, role).unwrap_or_default();
            let brokers: Vec<_> =
                peers.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
            brokers.join(",")
        };
        let mut env = vec![("KAFKA_BROKERS", addresses("client"))];
        if self.secure.is_some() {
            env.push(("KAFKA_SECURE_BROKERS", addresses("secure")));
        }
        env
    }
}

/// Gives an empty log directory its identity. The tool writes `meta.properties` before the rest, so
/// that file says nothing about completeness: the work is done aside and moved into place.
fn format(site: &Site) -> Result<()> {
    let log_dir = site.data_dir.join("log");
    if log_dir.is_dir() {
        return Ok(());
    }
    let draft = site.data_dir.join("log.draft");
    if draft.is_dir() {
        fs::remove_dir_all(&draft).with_context(|| format!("remove {}", draft.display()))?;
    }
    let text = fs::read_to_string(properties(site)).context("read the broker's configuration")?;
    let draft_properties = site.data_dir.join("format.properties");
    let text = text.replace(&config::log_dirs(&log_dir), &config::log_dirs(&draft));
    placement::write_private(&draft_properties, &text, None)?;

    let mut command = java(site)?;
    // It lives for a second: compiling well and collecting are not worth starting for.
    command
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["kafka.tools.StorageTool", "format", "-t", &site.cluster_id, "-c"])
        .arg(&draft_properties);
    let output = command.output().context("start kafka.tools.StorageTool")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("kafka.tools.StorageTool ended with {}:\n{said}", output.status);
    }
    fs::remove_file(&draft_properties).context("remove the formatting configuration")?;
    fs::rename(&draft, &log_dir).with_context(|| format!("create {}", log_dir.display()))
}

/// A JVM that leaves nothing outside the data directory, even when it is killed.
fn java(site: &Site) -> Result<Command> {
    let program = find_program("java").context("find java: run `order-stack install`")?;
    let mut command = Command::new(program);
    let mut tmp = std::ffi::OsString::from("-Djava.io.tmpdir=");
    tmp.push(site.data_dir.join("tmp"));
    command
        .current_dir(&site.data_dir)
        // Compression codecs unpack native libraries into the temporary directory.
        .arg(tmp)
        // Otherwise a memory-mapped file in /tmp/hsperfdata_USER.
        .arg("-XX:-UsePerfData")
        .args(["-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"])
        .args(["-Dorg.slf4j.simpleLogger.showDateTime=true", LOG_TIME, "-cp"])
        .arg(classpath(&jars::libs()?));
    Ok(command)
}

const LOG_TIME: &str = "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX";

fn classpath(libs: &Path) -> std::ffi::OsString {
    libs.join("*").into_os_string()
}

fn properties(site: &Site) -> std::path::PathBuf {
    site.data_dir.join("server.properties")
}
