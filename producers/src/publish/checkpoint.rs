//! `FILE.progress`: up to where a file is published, beyond doubt.
//!
//! It only ever names a prefix of which every line is acknowledged or was no order, and replaces its predecessor as a
//! whole. Losing it costs time, never an order.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How much of a file identifies it.
const HEAD_BYTES: usize = 4_096;
/// How often progress is saved.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// A place in a file, always behind a whole line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// The first bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    bytes: usize,
    sha256: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    run_id: String,
    head: Head,
    position: Position,
}

/// The progress of one run.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    saved: Saved,
    last_save: Instant,
}

impl Head {
    /// Of `file`, its first 4 KiB at most.
    pub(super) fn of(file: &Path) -> anyhow::Result<Self> {
        Self::of_first(file, HEAD_BYTES)
    }

    /// Also the default name of a run.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    fn of_first(file: &Path, bytes: usize) -> anyhow::Result<Self> {
        let mut start = Vec::with_capacity(bytes);
        File::open(file)
            .and_then(|file| file.take(bytes as u64).read_to_end(&mut start))
            .with_context(|| format!("reading {}", file.display()))?;
        let digest = Sha256::digest(&start);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes: start.len(), sha256 })
    }
}

impl Checkpoint {
    /// The start of a run over `file`.
    pub(super) fn start(file: &Path, run_id: String, head: Head) -> Self {
        let saved = Saved { run_id, head, position: Position::default() };
        Self { path: path(file), saved, last_save: Instant::now() }
    }

    /// Where an earlier run over `file` got to; none when there was none.
    pub(super) fn load(file: &Path) -> anyhow::Result<Option<Self>> {
        let path = path(file);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let saved: Saved = serde_json::from_slice(&text).with_context(|| {
            format!("{} is not a progress file; remove it to start over", path.display())
        })?;
        if Head::of_first(file, saved.head.bytes)? != saved.head {
            bail!(
                "{} belongs to another file than {}; remove it to start over",
                path.display(),
                file.display()
            );
        }
        Ok(Some(Self { path, saved, last_save: Instant::now() }))
    }

    pub(super) fn position(&self) -> Position {
        self.saved.position
    }

    pub(super) fn run_id(&self) -> &str {
        &self.saved.run_id
    }

    /// Everything before `position` is settled. Saved now and then.
    pub(super) fn reached(&mut self, position: Position) -> anyhow::Result<()> {
        self.saved.position = position;
        if self.last_save.elapsed() >= SAVE_PERIOD { self.save() } else { Ok(()) }
    }

    /// Saves, replacing the file as a whole.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        let partial = self.path.with_extension("progress.partial");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(&serde_json::to_vec(&self.saved)?)?;
            file.sync_all()?;
            fs::rename(&partial, &self.path)
        };
        write().with_context(|| format!("saving progress in {}", self.path.display()))?;
        self.last_save = Instant::now();
        Ok(())
    }
}

fn path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".progress");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_found_again_and_only_for_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.ndjson");
        fs::write(&file, "one\ntwo\n").unwrap();
        assert!(Checkpoint::load(&file).unwrap().is_none());

        let mut checkpoint = Checkpoint::start(&file, "run".to_owned(), Head::of(&file).unwrap());
        checkpoint.reached(Position { lines: 1, bytes: 4 }).unwrap();
        checkpoint.save().unwrap();
        // A file may grow behind what was published.
        fs::write(&file, "one\ntwo\nthree\n").unwrap();
        let found = Checkpoint::load(&file).unwrap().unwrap();

        assert_eq!(found.position(), Position { lines: 1, bytes: 4 });
        assert_eq!(found.run_id(), "run");
        fs::write(&file, "other\n").unwrap();
        assert!(Checkpoint::load(&file).is_err());
    }
}
