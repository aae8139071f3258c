//! Getting programs onto the machine: Debian packages through apt-get, jars through Maven, wheels through
//! pip. Installs only what is missing, never removes, and when it may not install says what to type.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::placement;
use crate::progress::{Progress, Step};
use crate::wait::{self, Interrupt};

pub(crate) struct Installer {
    pub(crate) progress: Progress,
    pub(crate) interrupt: Interrupt,
}

impl Installer {
    /// Installs `packages` unless `present` says that they are there.
    pub(crate) fn apt(&self, packages: &[&str], present: impl Fn() -> bool) -> Result<()> {
        if present() {
            return Ok(());
        }
        let list = packages.join(" ");
        let by_hand =
            format!("apt-get update && apt-get install -y --no-install-recommends {list}");
        if find_program("apt-get").is_none() {
            bail!("{list} missing, and there is no apt-get here: install the equivalent by hand");
        }
        if !placement::is_root() {
            bail!("{list} missing, and installing needs root; run: sudo sh -c '{by_hand}'");
        }
        let step = self.progress.step("apt-get", &format!("installing {list}"));
        // The lists may be absent or older than the packages they name, so they are refreshed first;
        // when that fails, the cached lists may still do.
        let mut update = Command::new("apt-get");
        update.args(["update", "-q"]);
        if let Err(error) = self.run(update, &step) {
            self.interrupt.check()?;
            step.now(&format!("using the package lists as they are: {error}"));
        }
        let mut install = Command::new("apt-get");
        install
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive");
        self.run(install, &step)
            .with_context(|| format!("install {list}; to see why, run: {by_hand}"))?;
        if !present() {
            bail!("{list} installed without error, but the programs did not appear");
        }
        step.done(&format!("installed {list}"));
        Ok(())
    }

    /// Installs the package of a server, and sees to it that only a stack ever starts that server: the package would
    /// start it at once and at every boot, on the default port.
    pub(crate) fn apt_server(&self, package: &str, present: impl Fn() -> bool) -> Result<()> {
        if present() {
            return Ok(());
        }
        let _no_start = match placement::is_root() {
            true => Some(NoStart::of(package)?),
            false => None,
        };
        self.apt(&[package], present)
    }

    /// Runs a program to its end, showing how many lines it has written. It has its own process
    /// group, so that an interrupt can end it with its children and leave nothing half done behind.
    pub(crate) fn run(&self, mut command: Command, step: &Step) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = tempfile::tempfile().context("create a file for the output")?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the output")?)
            .stderr(output.try_clone().context("share the output")?)
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {program}"))?;
        let ended = wait::until(RUN_LIMIT, &self.interrupt, || {
            let written = output.metadata().map_or(0, |meta| meta.len());
            step.tick(&format!("{program}: {} KiB of output", written / 1024));
            child.try_wait().with_context(|| format!("wait for {program}"))
        });
        let status = match ended {
            Ok(Some(status)) => status,
            other => {
                let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                if let Some(group) = group {
                    // Not KILL: apt-get and dpkg leave a clean state behind when asked to stop.
                    let asked =
                        rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
                    asked.with_context(|| format!("stop {program}"))?;
                }
                child.wait().with_context(|| format!("wait for {program}"))?;
                other.with_context(|| format!("wait for {program}"))?;
                bail!("{program} did not finish in {} minutes", RUN_LIMIT.as_secs() / 60);
            }
        };
        if !status.success() {
            bail!("{program} ended with {status}; its last words:\n{}", tail_of(output)?);
        }
        Ok(())
    }
}

/// While it lives, a package's scripts start nothing. Its systemd unit stays masked afterwards; undone by
/// `systemctl unmask`.
struct NoStart {
    /// The rule of invoke-rc.d, for machines without systemd; `None` when the machine has one of its own.
    policy: Option<PathBuf>,
}

impl NoStart {
    fn of(package: &str) -> Result<Self> {
        let unit = Path::new("/etc/systemd/system").join(format!("{package}.service"));
        if unit.symlink_metadata().is_err() {
            let mask = || -> std::io::Result<()> {
                fs::create_dir_all("/etc/systemd/system")?;
                std::os::unix::fs::symlink("/dev/null", &unit)
            };
            mask().with_context(|| format!("mask {}", unit.display()))?;
        }
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.symlink_metadata().is_ok() {
            return Ok(Self { policy: None });
        }
        let write = || -> std::io::Result<()> {
            let mut options = File::options();
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o755);
            let mut file = options.write(true).create_new(true).open(&policy)?;
            std::io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")
        };
        write().with_context(|| format!("write {}", policy.display()))?;
        Ok(Self { policy: Some(policy) })
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("remove {}: {error}", policy.display());
        }
    }
}

/// Longer than the slowest download that somebody would still wait for.
const RUN_LIMIT: Duration = Duration::from_secs(900);

pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// Programs that outlive a stack and are shared by all of them.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let root = from_env("XDG_CACHE_HOME").or_else(|| Some(from_env("HOME")?.join(".cache")));
    Ok(root.context("find the cache: neither XDG_CACHE_HOME nor HOME is set")?.join("order-stack"))
}

/// The end of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    File::open(log).map_err(anyhow::Error::from).and_then(tail_of).unwrap_or_default()
}

fn tail_of(mut output: File) -> Result<String> {
    let mut bytes = Vec::new();
    output.rewind().context("read the output")?;
    output.read_to_end(&mut bytes).context("read the output")?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(15));
    Ok(last.map(|line| format!("    {line}\n")).collect::<String>().trim_end().to_owned())
}

/// Puts a finished directory where it belongs, or accepts the one that somebody else put there.
pub(crate) fn publish(made: &Path, target: &Path) -> Result<()> {
    match fs::rename(made, target) {
        Err(_) if target.is_dir() => {
            fs::remove_dir_all(made).with_context(|| format!("remove {}", made.display()))
        }
        renamed => renamed.with_context(|| format!("move to {}", target.display())),
    }
}
