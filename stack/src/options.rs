//! What a caller may choose about a stack. No behaviour.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Interrupt, Progress};

/// Where the servers listen, always on 127.0.0.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// The documented ports: what a person at the keyboard expects.
    #[default]
    Default,
    /// Ports that are free now and that the kernel does not hand to clients: what tests need.
    Free,
}

/// The request for a stack. `StackOptions::new(dir)` is one broker and every server that the programs need, on the
/// default ports, without a word on the terminal.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Everything the stack writes is below this directory; `down` removes it.
    pub state_dir: PathBuf,
    pub ports: Ports,
    /// 1, or 3 for replication factor 3 with two in-sync replicas required.
    pub brokers: u8,
    /// Kinds of server to bring up (see [`crate::kinds`]); empty means those that the programs need.
    pub only: Vec<String>,
    /// Kinds to bring up besides, [`crate::MONITORING`] for all that watch.
    pub with: Vec<String>,
    /// Where on loopback Alertmanager finds pager, chat and webhook (a port that speaks HTTP) and mail (SMTP); those
    /// of `alertmanager.yml` when absent.
    pub alert_receiver: Option<u16>,
    pub alert_mail: Option<u16>,
    /// How many times as fast as in `prometheus/` time passes for those that watch: intervals, windows, waiting times and
    /// thresholds on time are divided by it. 1 leaves the files as they are.
    pub monitoring_faster: u32,
    /// A folder with `broker.pem` (key and certificate), `ca.pem` and `password`: brokers then listen a second time, for the
    /// user `client` with that password and a certificate of that authority.
    pub kafka_secure: Option<PathBuf>,
    /// Postgres' `shared_buffers`. Reserved when touched, so the default costs an idle stack little.
    pub postgres_shared_buffers: String,
    pub progress: Progress,
    /// Tripped by a signal handler: `up` then stops what it started and returns an error.
    pub interrupt: Interrupt,
}

impl StackOptions {
    pub fn new(state_dir: impl AsRef<Path>) -> Self {
        Self {
            state_dir: state_dir.as_ref().to_owned(),
            ports: Ports::Default,
            brokers: 1,
            only: Vec::new(),
            with: Vec::new(),
            alert_receiver: None,
            alert_mail: None,
            monitoring_faster: 1,
            kafka_secure: None,
            postgres_shared_buffers: DEFAULT_SHARED_BUFFERS.to_owned(),
            progress: Progress::silent(),
            interrupt: Interrupt::default(),
        }
    }

    /// For tests: free ports, and a small cache because several stacks may run at once.
    pub fn for_tests(state_dir: impl AsRef<Path>) -> Self {
        Self {
            ports: Ports::Free,
            postgres_shared_buffers: "128MB".to_owned(),
            ..Self::new(state_dir)
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            brokers: self.brokers,
            postgres_shared_buffers: self.postgres_shared_buffers.clone(),
            alert_receiver: self.alert_receiver,
            alert_mail: self.alert_mail,
            monitoring_faster: self.monitoring_faster,
            kafka_secure: self.kafka_secure.clone(),
        }
    }
}

/// Holds the hot part of the orders tables for a long load run on one machine.
pub(crate) const DEFAULT_SHARED_BUFFERS: &str = "1GB";

/// The choices that must be the same for every later start over the same data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) brokers: u8,
    pub(crate) postgres_shared_buffers: String,
    #[serde(default)]
    pub(crate) alert_receiver: Option<u16>,
    #[serde(default)]
    pub(crate) alert_mail: Option<u16>,
    #[serde(default = "as_fast_as_written")]
    pub(crate) monitoring_faster: u32,
    #[serde(default)]
    pub(crate) kafka_secure: Option<PathBuf>,
}

fn as_fast_as_written() -> u32 {
    1
}
