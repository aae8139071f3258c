//! vegeta: installed once from its pinned Go module, started, fed, and its results read while they come.
//!
//! Its results are also kept as it wrote them, for `vegeta report` and `vegeta plot`.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use stack::Interrupt;

use super::hit::Hit;
use super::profile::Step;
use crate::targets::Targets;

const MODULE: &str = include_str!("../../vegeta/go.mod");
const SUMS: &str = include_str!("../../vegeta/go.sum");
const PACKAGE: &str = "github.com/tsenart/vegeta/v12";
/// Requests waiting for an answer at a time. Above it vegeta waits too, and sends late; the latencies count from when it
/// should have been.
const MOST_IN_FLIGHT: &str = "5000";
/// Above the API's own deadline, so that its answer is heard.
const ANSWER_PATIENCE: &str = "15s";

/// The program.
#[derive(Clone, Debug)]
pub(crate) struct Vegeta(PathBuf);

impl Vegeta {
    /// The one that `VEGETA` names, or the one built before; else it is built now, which takes a minute or two.
    pub(crate) fn installed(interrupt: Interrupt) -> anyhow::Result<Self> {
        if let Some(path) = std::env::var_os("VEGETA") {
            return Ok(Self(path.into()));
        }
        // Of the runs of one process, the first builds.
        static BUILDING: Mutex<()> = Mutex::new(());
        let _building = BUILDING.lock().expect("no code panics while it holds this lock");
        let folder = cache()?;
        let program = folder.join("vegeta");
        let is_this =
            std::fs::read_to_string(folder.join("go.mod")).is_ok_and(|module| module == MODULE);
        if program.is_file() && is_this {
            return Ok(Self(program));
        }
        let progress = stack::Progress::on_stderr();
        let go = stack::go(progress, interrupt)
            .context("vegeta is not built yet, and needs Go; VEGETA may name a vegeta 12.12")?;
        eprintln!("building vegeta from its Go module, once");
        // Beside it first: two that build at the same time do not meet.
        let work = folder.join(format!("build-{}", std::process::id()));
        std::fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        std::fs::write(work.join("go.mod"), MODULE).context("write go.mod")?;
        std::fs::write(work.join("go.sum"), SUMS).context("write go.sum")?;
        let built = Command::new(go)
            .args(["build", "-mod=readonly", "-trimpath", "-o", "vegeta", PACKAGE])
            .current_dir(&work)
            .output()
            .context("run go build")?;
        if !built.status.success() {
            bail!(
                "go build of vegeta ended with {}: {}",
                built.status,
                String::from_utf8_lossy(&built.stderr).trim()
            );
        }
        for file in ["vegeta", "go.mod"] {
            std::fs::rename(work.join(file), folder.join(file)).context("install vegeta")?;
        }
        std::fs::remove_dir_all(&work).context("tidy up after go build")?;
        Ok(Self(program))
    }

    /// Starts to attack as `step` says. Results go to `file`, and each to `each` as well, in any order.
    pub(crate) fn attack(
        &self,
        step: Step,
        targets: Arc<Mutex<Targets>>,
        file: &Path,
        each: impl Fn(Hit) + Send + 'static,
    ) -> anyhow::Result<Attack> {
        let results = File::create(file).with_context(|| format!("create {}", file.display()))?;
        let mut attack = Command::new(&self.0)
            .args(["attack", "-format=json", "-lazy", "-timeout", ANSWER_PATIENCE])
            .args(["-max-workers", MOST_IN_FLIGHT, "-connections", MOST_IN_FLIGHT])
            .arg(format!("-rate={}/s", step.rate))
            .arg(format!("-duration={}s", step.seconds))
            // Out of reach of a Ctrl-C in the terminal: it is ended in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.0.display()))?;
        let mut encode = Command::new(&self.0)
            .args(["encode", "-to", "csv"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start vegeta encode")?;
        const PIPED: &str = "the pipe was asked for";
        let (into, out_of) =
            (attack.stdin.take().expect(PIPED), attack.stdout.take().expect(PIPED));
        let (raw, csv) = (encode.stdin.take().expect(PIPED), encode.stdout.take().expect(PIPED));
        let threads = vec![
            thread::spawn(move || feed(into, &targets)),
            thread::spawn(move || copy(out_of, results, raw)),
            thread::spawn(move || read(csv, each)),
        ];
        Ok(Attack { attack, encode, threads })
    }
}

/// vegeta at work. Does not outlive its handle.
#[derive(Debug)]
pub(crate) struct Attack {
    attack: Child,
    encode: Child,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Attack {
    /// Nothing more is sent; what was sent is waited for.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        if self.attack.try_wait().context("ask after vegeta")?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.attack.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a child has a process id")?, Signal::INT).context("stop vegeta")
    }

    /// Whether every result is in.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What went wrong, once it has ended.
    pub(crate) fn ended(mut self) -> anyhow::Result<()> {
        for thread in std::mem::take(&mut self.threads) {
            let ended =
                thread.join().map_err(|_| anyhow::anyhow!("a thread of the attack panicked"));
            ended??;
        }
        let status = self.attack.wait().context("wait for vegeta")?;
        anyhow::ensure!(status.success(), "vegeta attack ended with {status}");
        let status = self.encode.wait().context("wait for vegeta encode")?;
        anyhow::ensure!(status.success(), "vegeta encode ended with {status}");
        Ok(())
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        for child in [&mut self.attack, &mut self.encode] {
            // Both fail only when the child is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// One at a time and unbuffered, so that a step takes from the next no more targets than a pipe holds.
fn feed(mut into: impl Write, targets: &Mutex<Targets>) -> anyhow::Result<()> {
    loop {
        let target = targets.lock().expect("no code panics while it holds this lock").next();
        let Some(mut target) = target else { return Ok(()) };
        target.push('\n');
        // vegeta has had enough.
        if into.write_all(target.as_bytes()).is_err() {
            return Ok(());
        }
    }
}

fn copy(mut from: impl Read, file: File, mut to: impl Write) -> anyhow::Result<()> {
    let mut file = BufWriter::new(file);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).context("read results of vegeta")?;
        if read == 0 {
            return file.flush().context("write results of vegeta");
        }
        file.write_all(&buffer[..read]).context("write results of vegeta")?;
        to.write_all(&buffer[..read]).context("hand on results of vegeta")?;
    }
}

fn read(csv: impl Read, each: impl Fn(Hit)) -> anyhow::Result<()> {
    for line in BufReader::new(csv).lines() {
        let line = line.context("read results of vegeta")?;
        each(Hit::parse(&line).with_context(|| format!("understand the result {line}"))?);
    }
    Ok(())
}

/// Beside the folder of this program's build, so that `cargo clean` takes it along.
fn cache() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    let mut folder = this.parent().context("a program lies in a folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    let folder = folder.parent().unwrap_or(folder).join("vegeta");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}
