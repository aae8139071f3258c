//! Second watchers, as in a highly available pair: a Prometheus with the same configuration and targets, and Alertmanagers that
//! gossip. They end with their handle.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

use crate::eventually::eventually;
use crate::pipeline::free_addresses;
use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(30);

/// Tells nobody: the first Alertmanager does.
const TELLS_NOBODY: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// A server that watches.
pub(super) struct Watcher {
    pub(super) address: SocketAddr,
    _child: Child,
}

impl Watcher {
    /// A Prometheus that has what the first one has, but for what it remembers.
    pub(super) async fn prometheus(scene: &Scene) -> anyhow::Result<Self> {
        let [address] = free_addresses()?;
        let first = scene.stack.data_dir("prometheus")?;
        let home = scene.pipeline.directory().join("second-prometheus");
        for folder in ["", "rules", "alerts", "targets"] {
            copy_files(&first.join(folder), &home.join(folder))?;
        }
        let mut command = Command::new("prometheus");
        command
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .args(scene.stack.prometheus_flags()?)
            .arg(format!("--web.listen-address={address}"))
            .env("PROMETHEUS_CLUSTER", "local")
            .env("PROMETHEUS_REPLICA", "b");
        Self::start(command, &home, address).await
    }

    /// An Alertmanager that gossips at `gossip`, with `peer` if it knows one.
    pub(super) async fn alertmanager(
        scene: &Scene,
        address: SocketAddr,
        gossip: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let home = scene.pipeline.directory().join(format!("alertmanager-{}", gossip.port()));
        fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
        fs::write(home.join("alertmanager.yml"), TELLS_NOBODY).context("write a configuration")?;
        let mut command = Command::new("prometheus-alertmanager");
        command
            .args(["--config.file=alertmanager.yml", "--storage.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--cluster.listen-address={gossip}"))
            .args(peer.map(|peer| format!("--cluster.peer={peer}")));
        Self::start(command, &home, address).await
    }

    async fn start(mut command: Command, home: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let log = File::create(home.join("log")).context("create a log")?;
        command
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().context("start a second watcher")?;
        let url = format!("http://{address}/-/ready");
        eventually(PATIENCE, "a second watcher is ready", async || {
            let answer = reqwest::get(&url).await.context("ask it")?;
            ensure!(answer.status().is_success(), "it answers {}", answer.status());
            Ok(())
        })
        .await?;
        Ok(Self { address, _child: child })
    }
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let files = fs::read_dir(from).with_context(|| format!("read {}", from.display()))?;
    let files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(file, to.join(name)).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}
