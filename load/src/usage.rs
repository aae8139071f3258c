//! What processes use: CPU seconds and resident memory, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use stack::Stack;
use tokio::task::JoinHandle;

use crate::eventually::eventually;

/// What `/proc` counts CPU time in; the kernel's interface fixes it.
const TICKS_PER_SECOND: f64 = 100.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const CHILD_PATIENCE: Duration = Duration::from_secs(5);

/// CPU seconds by name of the subject.
pub(crate) type Cpu = BTreeMap<&'static str, f64>;

/// A process, or one with its children, under the name that the report gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    name: &'static str,
    pid: i32,
    with_children: bool,
}

impl Subject {
    /// This process itself.
    pub(crate) fn this(name: &'static str) -> anyhow::Result<Self> {
        Ok(Self { name, pid: i32::try_from(std::process::id())?, with_children: false })
    }

    /// A process that is known by its number.
    pub(crate) fn process(name: &'static str, pid: u32) -> anyhow::Result<Self> {
        Ok(Self { name, pid: i32::try_from(pid)?, with_children: false })
    }

    /// The only child of this process that runs `program`.
    pub(crate) async fn child(name: &'static str, program: &str) -> anyhow::Result<Self> {
        // Between fork and exec it bears this process's own name.
        eventually(CHILD_PATIENCE, "the child is there", async || {
            match children_running(program)?[..] {
                [pid] => Ok(Self { name, pid, with_children: false }),
                ref found => anyhow::bail!("{} children run {program}, not one", found.len()),
            }
        })
        .await
    }

    /// Postgres is all its processes: connections, the checkpointer, vacuum.
    pub(crate) fn servers(stack: &Stack) -> anyhow::Result<Vec<Self>> {
        let status = stack.status()?;
        let pid =
            |name| status.iter().find(|server| server.name == name).and_then(|server| server.pid);
        let temporal =
            pid("temporal").map(|pid| Self { name: "temporal", pid, with_children: false });
        let always = [
            Self {
                name: "postgres",
                pid: pid("postgres").context("find Postgres")?,
                with_children: true,
            },
            Self { name: "kafka", pid: pid("kafka").context("find Kafka")?, with_children: false },
        ];
        Ok(always.into_iter().chain(temporal).collect())
    }

    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = Stat::of(self.pid)?;
        let mut ticks = stat.own;
        if self.with_children {
            // A child that has ended is in its parent's account.
            ticks += stat.ended_children;
            ticks += children(self.pid)
                .iter()
                .filter_map(|child| Stat::of(*child).ok())
                .map(|child| child.own)
                .sum::<u64>();
        }
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// Resident bytes. Of several processes: what each has for itself, and what they share once.
    fn memory(&self) -> Option<u64> {
        if !self.with_children {
            return Memory::of(self.pid).map(|memory| memory.private + memory.shared);
        }
        let all = children(self.pid).into_iter().chain([self.pid]).filter_map(Memory::of);
        let (private, shared) = all.fold((0, 0), |(private, shared), memory| {
            (private + memory.private, memory.shared.max(shared))
        });
        Some(private + shared)
    }
}

/// CPU seconds that each of `subjects` has used since it began.
pub(crate) fn cpu(subjects: &[Subject]) -> anyhow::Result<Cpu> {
    subjects.iter().map(|subject| Ok((subject.name, subject.cpu()?))).collect()
}

/// `after - before`, divided by `units`.
pub(crate) fn per(units: f64, before: &Cpu, after: &Cpu) -> Cpu {
    let of = |name| before.get(name).copied().unwrap_or(0.0);
    after.iter().map(|(name, seconds)| (*name, (seconds - of(name)) / units)).collect()
}

struct Stat {
    parent: i32,
    own: u64,
    ended_children: u64,
}

impl Stat {
    fn of(pid: i32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The name, in parentheses, may hold anything.
        let (_, fields) = text.rsplit_once(") ").with_context(|| format!("understand {path}"))?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0_u64);
        let parent = fields.get(1).and_then(|field| field.parse().ok()).unwrap_or(0);
        Ok(Self { parent, own: ticks(11) + ticks(12), ended_children: ticks(13) + ticks(14) })
    }
}

fn children_running(program: &str) -> anyhow::Result<Vec<i32>> {
    let me = i32::try_from(std::process::id())?;
    let all = fs::read_dir("/proc").context("list processes")?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runs = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == program && Stat::of(*pid).is_ok_and(|stat| stat.parent == me)
    };
    Ok(pids.filter(runs).collect())
}

struct Memory {
    private: u64,
    shared: u64,
}

impl Memory {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let private = bytes("RssAnon:")?;
        Some(Self { private, shared: bytes("RssFile:")? + bytes("RssShmem:")? })
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Watches memory until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<BTreeMap<&'static str, Vec<u64>>>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(subjects: Vec<Subject>) -> Self {
        let seen: Arc<Mutex<BTreeMap<&'static str, Vec<u64>>>> = Arc::default();
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let mut timer = tokio::time::interval(SAMPLE_EVERY);
            loop {
                timer.tick().await;
                let mut seen = shared.lock().expect("no code panics while it holds this lock");
                for subject in &subjects {
                    seen.entry(subject.name).or_default().extend(subject.memory());
                }
            }
        });
        Self { seen, task }
    }

    /// Resident bytes of each subject over time.
    pub(crate) fn seen(&self) -> BTreeMap<&'static str, Vec<u64>> {
        self.seen.lock().expect("no code panics while it holds this lock").clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_cpu_and_memory_is_resident() {
        let me = [Subject::this("me").unwrap()];
        let before = cpu(&me).unwrap();
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(400) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }

        let used = per(1.0, &before, &cpu(&me).unwrap());

        // Other work on the machine takes its share.
        assert!((0.02..10.0).contains(&used["me"]), "{used:?}");
        assert!(me[0].memory().unwrap() > 1 << 20);
    }
}
