//! What is known about a stack between two commands: `state.json` and the lock beside it. The file
//! is replaced whole, so a reader sees one version or the next; only the lock's holder writes it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::options::Settings;
use crate::placement;
use crate::process::Process;
use crate::progress::Progress;
use crate::wait::{self, Interrupt};

/// Raised when an old state file can no longer be understood.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    pub(crate) settings: Settings,
    /// Names this stack to its servers; Kafka writes it into its data.
    pub(crate) cluster_id: String,
    pub(crate) servers: BTreeMap<String, Record>,
}

/// One server as it was last started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) ports: BTreeMap<String, u16>,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    /// `None` after an orderly stop. A process that is gone without one has died.
    pub(crate) process: Option<Process>,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let cluster_id = format!("{}A", &random_hex(11)?[..21]);
        Ok(Self { format: FORMAT, settings, cluster_id, servers: BTreeMap::new() })
    }

    /// `None` when no stack has this directory.
    pub(crate) fn load(state_dir: &Path) -> Result<Option<Self>> {
        let path = state_dir.join("state.json");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        let state: Self = serde_json::from_str(&text)
            .with_context(|| format!("understand {}", path.display()))?;
        if state.format != FORMAT {
            bail!("{} was written by another version of order-stack", path.display());
        }
        Ok(Some(state))
    }

    pub(crate) fn expect(state_dir: &Path) -> Result<Self> {
        Self::load(state_dir)?.with_context(|| {
            format!("no stack in {}; start one with `order-stack up`", state_dir.display())
        })
    }

    pub(crate) fn save(&self, state_dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("write the state as JSON")?;
        placement::write_private(&state_dir.join("state.json"), &text, None)
    }

    pub(crate) fn record(&self, server: &str) -> Result<&Record> {
        self.servers.get(server).with_context(|| {
            let known: Vec<_> = self.servers.keys().map(String::as_str).collect();
            format!("no server {server} here; there is {}", known.join(", "))
        })
    }
}

/// Held while a command changes a stack. The kernel releases it with the process, however it ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    pub(crate) fn acquire(dir: &Path, progress: &Progress, interrupt: &Interrupt) -> Result<Self> {
        let mut told = false;
        let lock = wait::until(LOCK_LIMIT, interrupt, || {
            let lock = Self::attempt(dir)?;
            if lock.is_none() && !told {
                told = true;
                progress.say("another order-stack is working on this stack, waiting for it");
            }
            Ok(lock)
        })?;
        lock.with_context(|| format!("another order-stack holds {} for too long", dir.display()))
    }

    fn attempt(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(LOCK_FILE);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.with_context(|| format!("open the lock {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // `down` removes the directory while it holds the lock: a lock on a removed file is no lock.
        let held = file.metadata().context("look at the lock")?.ino();
        let current = fs::metadata(&path).is_ok_and(|meta| meta.ino() == held);
        Ok(current.then_some(Self(file)))
    }
}

pub(crate) const LOCK_FILE: &str = "stack.lock";

/// A first `up` may install packages while others wait for it.
const LOCK_LIMIT: Duration = Duration::from_secs(900);

pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    let mut source = File::open("/dev/urandom").context("open the random source")?;
    std::io::Read::read_exact(&mut source, &mut buffer).context("read the random source")?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}
