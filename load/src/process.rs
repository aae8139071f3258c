//! A program of the pipeline as a child process: start, wait until ready, freeze, kill, start again.
//!
//! Promises that the process does not outlive its handle, that only this child is ever signalled, and that whoever waits
//! in vain sees the end of its log.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::eventually::eventually;

/// Lines of a log that are shown when something went wrong.
const TAIL_LINES: usize = 25;
/// How long a killed process may take to be gone.
const GONE_PATIENCE: Duration = Duration::from_secs(10);

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names the process and its log file.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Added to what this process has itself.
    pub environment: Vec<(String, String)>,
    /// Where it answers `/readyz` and `/metrics`.
    pub admin: SocketAddr,
    pub log: PathBuf,
    /// Out of reach of a Ctrl-C in the terminal, so that whoever started it can end it in order.
    pub own_group: bool,
}

/// A running process, or one that has ended and can be started again.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Child,
    ended: Option<ExitStatus>,
    http: reqwest::Client,
}

impl Spec {
    /// The same with one more variable.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The same with more arguments.
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// The same, dying or freezing at a crash point: `stage.point[:kill|stop[:nth]]`.
    pub fn crash_at(self, point: &str) -> Self {
        self.with("CRASH_AT", point)
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open the log {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log);
        if self.own_group {
            command.process_group(0);
        }
        command.spawn().with_context(|| format!("start {}", self.program.display()))
    }
}

impl Process {
    /// Starts; does not wait for anything.
    pub fn start(spec: Spec) -> anyhow::Result<Self> {
        let child = spec.spawn()?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        Ok(Self { spec, child, ended: None, http })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn admin(&self) -> SocketAddr {
        self.spec.admin
    }

    /// Waits until `/readyz` says that all is well.
    pub async fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let url = format!("http://{}/readyz", self.spec.admin);
        let what = format!("{} is ready", self.spec.name);
        let mut died = None;
        let waited = eventually(patience, &what, async || {
            if let Some(status) = self.poll()? {
                died = Some(status);
                return Ok(());
            }
            let answer = self.http.get(&url).send().await.context("ask /readyz")?;
            let status = answer.status();
            let body = answer.text().await.context("read /readyz")?;
            anyhow::ensure!(status.is_success(), "{status}: {}", body.trim());
            Ok(())
        });
        waited.await.with_context(|| self.tail())?;
        match died {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}\n{}", self.spec.name, self.tail()),
        }
    }

    /// How it ended, if it did.
    pub fn poll(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended =
                self.child.try_wait().with_context(|| format!("ask after {}", self.spec.name))?;
        }
        Ok(self.ended)
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("{} has ended", self.spec.name);
        let waited =
            eventually(patience, &what, async || self.poll()?.context("it is running")).await;
        waited.with_context(|| self.tail())
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(status) = self.poll()? {
            bail!("{} has ended with {status}", self.spec.name);
        }
        // Nobody has collected the child, so its number is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child has a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.spec.name))
    }

    /// Waits until something has frozen it: a STOP of ours, or a crash point.
    pub async fn frozen(&mut self, patience: Duration) -> anyhow::Result<()> {
        let what = format!("{} is frozen", self.spec.name);
        let stat = format!("/proc/{}/stat", self.child.id());
        let waited = eventually(patience, &what, async || {
            let text = std::fs::read_to_string(&stat).context("it has ended")?;
            // The command name before the state may hold anything but ends with the last parenthesis.
            let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            anyhow::ensure!(state == Some('T'), "its state is {state:?}");
            Ok(())
        });
        waited.await.with_context(|| self.tail())
    }

    /// A crash: gone without a word when this returns.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.ended(GONE_PATIENCE).await.map(drop)
    }

    /// An orderly end within `patience`; killed and an error otherwise.
    pub async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        if self.poll()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        match self.ended(patience).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("{} ended with {status}\n{}", self.spec.name, self.tail()),
            Err(error) => {
                self.kill().await?;
                Err(error.context("killed, because it did not end in time"))
            }
        }
    }

    /// Starts it again, with `change` applied to how; it must have ended.
    pub fn start_again(&mut self, change: impl FnOnce(&mut Spec)) -> anyhow::Result<()> {
        anyhow::ensure!(self.poll()?.is_some(), "{} is running", self.spec.name);
        change(&mut self.spec);
        self.child = self.spec.spawn()?;
        self.ended = None;
        Ok(())
    }

    /// Sum of the series of `family` whose labels contain all of `labels`; `None` when there is none.
    pub async fn metric(
        &self,
        family: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Option<f64>> {
        let answer = self.http.get(format!("http://{}/metrics", self.spec.admin)).send().await;
        let text = answer
            .and_then(reqwest::Response::error_for_status)
            .context("ask for metrics")?
            .text()
            .await?;
        Ok(sum_of(&text, family, labels))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        read_log(&self.spec.log)
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("end of the log of {} ({}):\n{shown}\n", self.spec.name, self.spec.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Both fail only when the child is gone already.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn read_log(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sum of the series of `family` in a page of metrics whose labels contain all of `labels`.
pub(crate) fn sum_of(text: &str, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(family)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let matches = wanted.iter().all(|label| found.split(',').any(|part| part == label));
        if matches { value.split(' ').next()?.parse::<f64>().ok() } else { None }
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_matching_series() {
        let text = "# TYPE lag gauge\nlag{stage=\"a\",partition=\"0\"} 3\nlag{stage=\"a\",partition=\"1\"} 4\n\
                    lag{stage=\"b\",partition=\"1\"} 5\nlag_seconds{stage=\"a\"} 9\nup 1\n";

        assert_eq!(sum_of(text, "lag", &[("stage", "a")]), Some(7.0));
        assert_eq!(sum_of(text, "lag", &[]), Some(12.0));
        assert_eq!(sum_of(text, "up", &[]), Some(1.0));
        assert_eq!(sum_of(text, "lag", &[("stage", "c")]), None);
    }
}
