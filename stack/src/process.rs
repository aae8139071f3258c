//! Processes and their identity. A process is a pid *and* its start time, because a pid alone may
//! belong to somebody else tomorrow: what does not match is dead, and is never signalled.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::placement::Account;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Gone at once, as in a crash: nothing is flushed, nothing is said to clients.
    Kill,
    /// Frozen but still connected: what a long pause or a hung disk looks like from outside.
    Stop,
    /// Ends a `Stop`.
    Cont,
    /// The polite request; what it means is the server's business.
    Term,
    /// For Postgres the fast shutdown: sessions are ended, data is written.
    Int,
    /// For those that watch: read the configuration again.
    Hup,
}

impl Signal {
    fn raw(self) -> rustix::process::Signal {
        match self {
            Self::Kill => rustix::process::Signal::KILL,
            Self::Stop => rustix::process::Signal::STOP,
            Self::Cont => rustix::process::Signal::CONT,
            Self::Term => rustix::process::Signal::TERM,
            Self::Int => rustix::process::Signal::INT,
            Self::Hup => rustix::process::Signal::HUP,
        }
    }

    /// A crash or a freeze hits a whole server; an orderly stop is for its main process to arrange.
    fn hits_children(self) -> bool {
        matches!(self, Self::Kill | Self::Stop | Self::Cont)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Running,
    Stopped,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since boot, from `/proc/PID/stat`.
    start_ticks: u64,
    /// Ticks start again with every boot, and a state file outlives one.
    boot_id: String,
    exe: PathBuf,
}

impl Process {
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let stat = Stat::read(pid).with_context(|| format!("find process {pid}"))?;
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        Ok(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id(), exe })
    }

    pub(crate) fn liveness(&self) -> Liveness {
        match Stat::read(self.pid) {
            Some(stat) if stat.start_ticks != self.start_ticks || self.boot_id != boot_id() => {
                Liveness::Dead
            }
            Some(Stat { state: 'Z' | 'X', .. }) | None => Liveness::Dead,
            Some(Stat { state: 'T' | 't', .. }) => Liveness::Stopped,
            Some(_) => Liveness::Running,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.liveness() == Liveness::Dead
    }

    /// Whether there was still somebody to signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool> {
        let children = match signal.hits_children() && !self.is_dead() {
            true => descendants(self.pid),
            false => Vec::new(),
        };
        let delivered = self.signal_one(signal)?;
        for child in children {
            child.signal_one(signal)?;
        }
        Ok(delivered)
    }

    fn signal_one(&self, signal: Signal) -> Result<bool> {
        // The pidfd pins the process, so it cannot be replaced between the check and the signal.
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
        if self.is_dead() {
            return Ok(false);
        }
        match pidfd_send_signal(&pidfd, signal.raw()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }

    /// Children that outlived this process and still sit in its data: a killed Postgres leaves
    /// backends for a moment, and they hold the shared memory that a new one needs.
    pub(crate) fn leftovers(&self, data_dir: &Path) -> Vec<i32> {
        pids()
            .filter(|pid| {
                let link = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).ok();
                *pid != self.pid
                    && link("exe").is_some_and(|exe| exe == self.exe)
                    && link("cwd").is_some_and(|cwd| cwd.starts_with(data_dir))
            })
            .collect()
    }

    pub(crate) fn uptime(&self) -> Option<Duration> {
        let now: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
        // The kernel reports ticks to user space in hundredths of a second on every architecture.
        Duration::try_from_secs_f64(now - self.start_ticks as f64 / 100.0).ok()
    }

    /// Resident memory of the process and its children. Pages that children share are counted once
    /// per child, so Postgres looks larger than it is.
    pub(crate) fn rss_kib(&self) -> u64 {
        std::iter::once(self.pid)
            .chain(descendants(self.pid).into_iter().map(|child| child.pid))
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter_map(|status| {
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
                line.trim().trim_end_matches(" kB").parse::<u64>().ok()
            })
            .sum()
    }
}

/// Ended, but its parent has not asked how. Some first processes of containers never do.
pub(crate) fn is_zombie(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.state == 'Z')
}

/// Starts a server in its own process group, so that Ctrl-C in the terminal does not reach it.
pub(crate) fn spawn(
    mut command: Command,
    log: &Path,
    account: Option<&Account>,
) -> Result<Process> {
    let output = File::options().create(true).append(true).open(log);
    let output = output.with_context(|| format!("open the log {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share the log")?)
        .stderr(output)
        .process_group(0);
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let process = Process::of(i32::try_from(child.id()).context("pid out of range")?);
    // Somebody has to collect the exit status, or a killed server stays as a zombie for as long as
    // a test program runs. The thread ends with the server or with the program.
    std::thread::spawn(move || drop(child.wait()));
    process
}

struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The command name may hold spaces and parentheses; everything after the last one is fixed.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn descendants(root: i32) -> Vec<Process> {
    let parents: Vec<(i32, i32)> =
        pids().filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.into_iter().skip(1).filter_map(|pid| Process::of(pid).ok()).collect()
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b (c)) S 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";

        let stat = Stat::parse(line).unwrap();

        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 3, 4242));
    }

    #[test]
    fn a_recycled_pid_counts_as_dead_and_is_not_signalled() {
        let myself = Process::of(std::process::id() as i32).unwrap();
        let former_owner = Process { start_ticks: myself.start_ticks - 1, ..myself.clone() };
        let before_the_boot = Process { boot_id: "another".to_owned(), ..myself.clone() };

        assert_eq!(myself.liveness(), Liveness::Running);
        assert!(former_owner.is_dead() && before_the_boot.is_dead());
        assert!(!former_owner.signal(Signal::Kill).unwrap());
        assert!(!before_the_boot.signal(Signal::Kill).unwrap());
    }
}
