//! Finds the programs that were built with this one.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub(super) producer: PathBuf,
    pub(super) consumer: PathBuf,
}

impl Binaries {
    /// Beside this program; a test program lies one folder deeper.
    pub fn find() -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        let folder = this.parent().context("a program lies in a folder")?;
        let folder =
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Ok(Self {
            producer: find(folder, "order-producer")?,
            consumer: find(folder, "order-consumer")?,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        self.consumer.parent().unwrap_or(Path::new(""))
    }
}

fn find(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let program = folder.join(name);
    if !program.is_file() {
        bail!("{} is not there; build it with `cargo build --release --bins`", program.display());
    }
    Ok(program)
}
