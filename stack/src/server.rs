//! What one server must be able to say about itself. Everything that all servers share (processes,
//! ports, logs, deadlines, the state file) is done once, in `stack.rs`; a server never does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::Installer;
use crate::placement::{self, Account};
use crate::process::Signal;
use crate::state::{Record, State};

pub(crate) trait Server: Send + Sync {
    /// Unique in a stack, and what a person types.
    fn name(&self) -> String;

    /// Role and default port of each listener. The first one is the server's endpoint.
    fn ports(&self) -> Vec<(&'static str, u16)>;

    /// The system account to use when root starts the stack; `None` runs as whoever starts it.
    fn account(&self) -> Option<&'static str>;

    /// Gets the programs onto the machine. Does nothing, quickly, when they are there.
    fn install(&self, installer: &Installer) -> Result<()>;

    /// Writes configuration, and creates the data when there is none. Keeps data that is there; an
    /// interrupted first run must not be mistaken for data.
    fn prepare(&self, site: &Site) -> Result<()>;

    /// The command that becomes the server. It must not fork into the background.
    fn command(&self, site: &Site) -> Result<Command>;

    /// One real request, answered in the time a healthy server needs; the error says what is missing.
    fn probe(&self, site: &Site) -> Result<()>;

    /// Asks for an orderly stop.
    fn stop_signal(&self) -> Signal {
        Signal::Term
    }

    /// Removes what a killed server leaves outside its data directory; called when it is dead. Most leave nothing.
    fn sweep(&self, _: &Site) -> Result<()> {
        Ok(())
    }

    /// What clients need, as environment variables. Secrets are named by file, never by value.
    fn env(&self, site: &Site) -> Vec<(&'static str, String)>;
}

/// One server's place in a stack.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) state_dir: PathBuf,
    /// Private to the server and owned by its account.
    pub(crate) data_dir: PathBuf,
    pub(crate) account: Option<Account>,
    pub(crate) cluster_id: String,
    server: String,
    /// Every server's ports, because some have to find each other.
    ports: BTreeMap<String, BTreeMap<String, u16>>,
}

impl Site {
    pub(crate) fn new(state_dir: &Path, state: &State, server: &dyn Server) -> Result<Self> {
        let name = server.name();
        let Record { data_dir, .. } = state.record(&name)?;
        Ok(Self {
            state_dir: state_dir.to_owned(),
            data_dir: data_dir.clone(),
            account: account(server),
            cluster_id: state.cluster_id.clone(),
            ports: state.servers.iter().map(|(k, v)| (k.clone(), v.ports.clone())).collect(),
            server: name,
        })
    }

    pub(crate) fn port(&self, role: &str) -> Result<u16> {
        self.port_of(&self.server, role)
    }

    pub(crate) fn port_of(&self, server: &str, role: &str) -> Result<u16> {
        let port = self.ports.get(server).and_then(|ports| ports.get(role));
        port.copied().with_context(|| format!("{server} has no port for {role}"))
    }
}

pub(crate) fn account(server: &dyn Server) -> Option<Account> {
    server.account().filter(|_| placement::is_root()).and_then(placement::account)
}
