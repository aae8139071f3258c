//! Servers that a test starts for itself, with files of `prometheus/` that it may hurry up. They end with their handle.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::http::{await_some, send};

pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
}

impl Process {
    pub(crate) fn prometheus(dir: &Path, config: &str, more: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path=data-{port}"))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=exemplar-storage,expand-external-labels")
            .args(more)
            .env("PROMETHEUS_CLUSTER", "test")
            .env("PROMETHEUS_REPLICA", "a");
        Self::start(command, dir, port)
    }

    pub(crate) fn alertmanager(dir: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("prometheus-alertmanager");
        command
            .args(["--config.file=alertmanager.yml", "--cluster.listen-address="])
            .arg(format!("--storage.path=data-{port}"))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Self::start(command, dir, port)
    }

    fn start(mut command: Command, dir: &Path, port: u16) -> Self {
        let log = dir.join(format!("{port}.log"));
        let output = File::create(&log).unwrap();
        command.current_dir(dir).stdout(output.try_clone().unwrap()).stderr(output);
        let mut this = Self { child: command.spawn().unwrap(), port };
        // Behind TLS the answer is a refusal, and that is one too.
        await_some("a server that answers", || {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap());
            send(port, "GET", "/-/ready", "").ok().filter(|(status, _)| [200, 400].contains(status))
        });
        this
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn free_port() -> u16 {
    stack::free_ports(1).unwrap()[0]
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../prometheus")
}

/// A copy of `prometheus/` whose files went through `edit`.
pub(crate) fn copy(to: &Path, edit: &dyn Fn(String) -> String) {
    for folder in ["", "rules", "alerts", "variants", "alertmanager", "alertmanager/templates"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let text = fs::read_to_string(entry.path()).unwrap();
                fs::write(to.join(folder).join(entry.file_name()), edit(text)).unwrap();
            }
        }
    }
    fs::create_dir_all(to.join("targets")).unwrap();
    fs::create_dir_all(to.join("variants/targets")).unwrap();
}

/// Seconds instead of quarters of a minute.
pub(crate) fn hurry(config: String) -> String {
    ["15s", "30s", "20s", "10s"].iter().fold(config, |text, slow| text.replace(slow, "1s"))
}

pub(crate) fn targets(file: &Path, ports: &[u16]) {
    let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    fs::write(file, serde_json::json!([{ "targets": addresses }]).to_string()).unwrap();
}
