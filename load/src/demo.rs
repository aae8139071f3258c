//! `order-load demo`: everything, once, before your eyes.
//!
//! Promises that whatever happens, Ctrl-C included, what it started is stopped in order: first the programs, then the
//! servers. A stack that was there before is left as it was found.

mod alerts;
mod progress;
mod summary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use producers::generate::{Generator, Mix};
use schemas::Timestamp;
use stack::{Down, Ports, Progress, Stack, StackOptions};
use tokio::task::spawn_blocking;

use self::progress::Counting;

use self::summary::Summary;
use crate::eventually::eventually;
use crate::orders::{Client, Run};
use crate::pipeline::{Pipeline, READY_PATIENCE, STOP_PATIENCE, Setup, free_addresses};
use crate::process::Process;
use crate::signals::Signals;

/// How long orders may take after the last one was accepted, before the demo gives up: far beyond a healthy second.
const FINAL_PATIENCE: Duration = Duration::from_secs(120);
/// Temporal's development server closes some tens of workflows a second.
const AUDIT_PATIENCE: Duration = Duration::from_secs(600);
/// Every 33rd order is cancelled right after it was accepted.
const CANCEL_EVERY: u64 = 33;
/// How often it is asked whether the programs are still there while people look around.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// As a shell counts an end by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What to show.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How many orders to place.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub orders: u32,

    /// Stop everything after the verdict; the exit status is 0 only if every order is accounted for.
    #[arg(long)]
    pub once: bool,

    /// `default`: the documented ports (API 8080, Kafka 9092, Postgres 5432, Temporal 7233). `free`: any that are free.
    #[arg(long, env = "ORDER_STACK_PORTS", value_enum, default_value = "default")]
    pub ports: PortChoice,

    /// Where the servers keep everything they write.
    #[arg(long, env = "ORDER_STACK_STATE_DIR", default_value = ".stack", value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// Where the demo listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "documented at the argument")]
pub enum PortChoice {
    Default,
    Free,
}

/// How the stack was found, and so how to leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Stopped,
    Running,
}

/// Brings everything up, places orders, tells what became of them, and takes everything down.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen()?;
    let (stack, found) = match up(&args, &signals).await {
        Ok(up) => up,
        Err(_) if signals.came() => return Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => return Err(error),
    };
    let mut show = Show { args: &args, programs: Vec::new(), verdict: None };
    let shown = tokio::select! {
        shown = show.run(&stack) => shown,
        () = signals.wait() => Ok(()),
    };
    let Show { programs, verdict, .. } = show;
    let stopped = stop(programs).await;
    let left = leave(stack, found).await;
    shown.and(stopped).and(left)?;
    Ok(match verdict {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(INTERRUPTED),
    })
}

async fn up(args: &DemoArgs, signals: &Signals) -> anyhow::Result<(Stack, Found)> {
    let is_new = Stack::attach(&args.state_dir).is_err();
    let (ports, alerts) = match args.ports {
        PortChoice::Default => (Ports::Default, alerts::DOCUMENTED_PORT),
        PortChoice::Free => (Ports::Free, free_addresses::<1>()?[0].port()),
    };
    alerts::receive(alerts).await?;
    let options = StackOptions {
        ports,
        with: vec![stack::MONITORING.to_owned()],
        alert_receiver: Some(alerts),
        progress: Progress::on_stderr(),
        interrupt: signals.interrupt(),
        ..StackOptions::new(&args.state_dir)
    };
    let stack = spawn_blocking(move || Stack::up(&options))
        .await
        .context("the thread that starts servers ended")??;
    let found = match (is_new, stack.found_running()) {
        (true, _) => Found::Nothing,
        (false, true) => Found::Running,
        (false, false) => Found::Stopped,
    };
    Ok((stack, found))
}

async fn leave(stack: Stack, found: Found) -> anyhow::Result<()> {
    let down = move || match found {
        Found::Nothing => stack.down(Down::RemoveEverything),
        Found::Stopped => stack.down(Down::KeepData),
        Found::Running => Ok(()),
    };
    spawn_blocking(down)
        .await
        .context("the thread that stops servers ended")?
        .context("take the servers down")
}

/// All at once, because each may take its whole time.
async fn stop(programs: Vec<Process>) -> anyhow::Result<()> {
    let stopping =
        programs.into_iter().map(|mut program| async move { program.stop(STOP_PATIENCE).await });
    futures::future::join_all(stopping).await.into_iter().collect()
}

/// The demo itself, once servers are up.
struct Show<'a> {
    args: &'a DemoArgs,
    programs: Vec<Process>,
    /// Whether the auditor was content, once it has spoken.
    verdict: Option<bool>,
}

impl Show<'_> {
    /// Returns after the verdict with `--once`, and never otherwise unless something breaks.
    async fn run(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let mut pipeline = Pipeline::documented(stack)?;
        pipeline.supervise(stack)?;
        say("tables, topics, stock");
        pipeline.set_up(Setup::default()).await?;
        let client = self.start(&pipeline, stack).await?;
        let mut summary = self.place(&pipeline, &client).await?;
        summary.look_at_servers(stack)?;

        let (report, is_good) = pipeline.audit_for_people(AUDIT_PATIENCE).await?;
        let (report, verdict) = split_verdict(&report)?;
        summary.measure(&mut pipeline.tables().await?, &self.programs[1]).await?;
        summary.print(report, verdict)?;
        self.verdict = Some(is_good);
        if self.args.once { Ok(()) } else { self.watch().await }
    }

    async fn start(&mut self, pipeline: &Pipeline, stack: &Stack) -> anyhow::Result<Client> {
        let [api, producer, consumer, worker, temporal, lag, signals] = match self.args.ports {
            PortChoice::Default => {
                [8080, 9101, 9102, 9103, 9104, 9105, 9106].map(|port| ([127, 0, 0, 1], port).into())
            }
            PortChoice::Free => free_addresses()?,
        };
        say("order-producer, order-consumer, its worker and its lag exporter");
        for program in [
            pipeline.producer(api, producer),
            pipeline
                .stages("consumer", &[], consumer)
                .with("TEMPORAL_CLIENT_METRICS_ADDRESS", signals.to_string()),
            pipeline.worker("worker", worker, temporal),
            pipeline.lag_exporter("lag-exporter", lag),
        ] {
            self.programs.push(Process::start(program)?);
        }
        for (job, addresses) in [
            ("order_processing_api", &[producer][..]),
            ("consumers", &[consumer]),
            ("worker", &[worker]),
            ("temporal", &[temporal, signals]),
            ("lag_exporter", &[lag]),
        ] {
            let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            let told = stack.set_targets(job, &addresses);
            told.with_context(|| format!("tell Prometheus about {job}"))?;
        }
        for program in &mut self.programs {
            program.ready(READY_PATIENCE).await?;
        }
        Client::new(api)
    }

    /// Places the orders and waits for their end.
    async fn place(&self, pipeline: &Pipeline, client: &Client) -> anyhow::Result<Summary> {
        let mut tables = pipeline.tables().await?;
        let before = tables.final_orders().await?;
        let count = u64::from(self.args.orders);
        let orders = Generator::new(Mix::default()).take(self.args.orders as usize);
        let run = Run { cancel_every: CANCEL_EVERY, ..Run::default() };
        let counting = Counting::of(count);
        let begun = (Timestamp::now(), Instant::now());

        let placing = async {
            let placed = client.place_all(orders, &run, |_| counting.accepted()).await?;
            anyhow::Ok((placed, begun.1.elapsed()))
        };
        let patience = FINAL_PATIENCE + run.patience;
        let ending = eventually(patience, "every order is final", async || {
            let ended = tables.final_orders().await?.saturating_sub(before);
            counting.are_final(ended);
            anyhow::ensure!(ended >= count, "{ended} of {count} orders are final");
            Ok(())
        });
        let ((placed, accepting), ()) = tokio::try_join!(placing, ending)?;
        counting.finish();
        let cancelled = placed.iter().filter(|order| order.cancel.is_some()).count();
        Ok(Summary::new(begun.0, placed.len(), cancelled, accepting, client, &self.programs))
    }

    /// Stays until something breaks.
    async fn watch(&mut self) -> anyhow::Result<()> {
        say("everything stays up; Ctrl-C stops it");
        loop {
            for program in &mut self.programs {
                if let Some(status) = program.poll()? {
                    bail!("{} ended with {status}", program.name());
                }
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

/// The report, and its last lines: the workflows and the verdict.
fn split_verdict(report: &str) -> anyhow::Result<(&str, &str)> {
    let report = report.trim_end();
    let (rest, last) = report.rsplit_once("\n\n").unwrap_or(("", report));
    anyhow::ensure!(last.contains("reconciled:"), "the auditor came to no verdict: {last}");
    Ok((rest, last))
}

/// What goes on, for the person at the terminal; results go to standard output.
fn say(line: &str) {
    eprintln!("{line}");
}

/// Of a path or a URL beside what it shows.
fn look_at(url: &str, what: &str) -> String {
    format!("  {url:<52}{what}\n")
}
