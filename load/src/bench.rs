//! `order-load bench`: how fast the pipeline is, what it costs in CPU and memory, and how far it is from what the same
//! servers can do without it.
//!
//! Promises that a number and the limit beside it come from one run on one stack, and that rows are counted before a
//! number is believed. A goal that is missed is a result; a count that is wrong is a failure.

mod sample;
mod orders;
mod fill;
mod progress;
mod copy_bytes;
mod limits;
mod drain;
mod chain;
mod http_client;
mod http;
mod supervision;
mod watched;
mod report;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use producers::kafka::KafkaArgs;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use stack::{Down, Interrupt, Ports, Progress, Stack, StackOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use self::report::Report;
use crate::pipeline::Pipeline;

/// As a shell counts an end by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// The name of the program that runs stages, as the kernel knows it.
const CONSUMER: &str = "order-consumer";
const PRODUCER: &str = "order-producer";

/// What to measure.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Parts:
  a  the order stage drains a filled topic, beside the same rows written from memory
  b  all stages take orders to their end, without HTTP
  c  the API takes orders, one by one and in batches
  d  memory while a drains
  e  signals into Temporal beside a bare client's, and what orders feel of them
  f  what it costs to be scraped and traced: the drain of a, watched and alone in turns

Exit status: 0 when everything was measured, whether goals were met or not; 1 when something broke or a count is wrong.")]
pub struct BenchArgs {
    /// Events that the order stage drains, and rows that the limits write.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=10_000_000))]
    pub events: u32,

    /// Orders that all stages take to their end.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    pub orders: u32,

    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Drain, Part::Chain, Part::Http, Part::Memory, Part::Supervision, Part::Watched])]
    pub only: Vec<Part>,

    /// Measures everything this often, in turns, and shows medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=25))]
    pub rounds: u32,

    /// How long each load on the API lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub seconds: u64,

    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "documented in the help")]
pub enum Part {
    #[value(name = "a")]
    Drain,
    #[value(name = "b")]
    Chain,
    #[value(name = "c")]
    Http,
    #[value(name = "d")]
    Memory,
    #[value(name = "e")]
    Supervision,
    #[value(name = "f")]
    Watched,
}

/// Brings up servers of its own, measures, and takes them down, whatever happens.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::default();
    let stack = tokio::select! {
        biased;
        // The start runs on, hears of the interrupt, and undoes itself.
        stop = told_to_stop() => { stop?; interrupt.trip(); None }
        stack = up(&args, interrupt.clone()) => Some(stack?),
    };
    let Some(stack) = stack else { return Ok(ExitCode::from(INTERRUPTED)) };
    let measured = tokio::select! {
        measured = measure(&args, &stack) => measured.map(Some),
        stop = told_to_stop() => stop.map(|()| None),
    };
    say("taking the servers down");
    let down = spawn_blocking(move || stack.down(Down::RemoveEverything))
        .await
        .context("stop the servers")?;
    let report = measured?;
    down.context("take the servers down")?;
    let Some(report) = report else { return Ok(ExitCode::from(INTERRUPTED)) };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { report.text() };
    writeln!(stdout(), "{text}").context("write the result")?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn up(args: &BenchArgs, interrupt: Interrupt) -> anyhow::Result<Stack> {
    let temporal = args.only.contains(&Part::Supervision).then_some("temporal");
    let servers = ["kafka", "postgres"].into_iter().chain(temporal);
    let options = StackOptions {
        ports: Ports::Free,
        only: servers.map(str::to_owned).collect(),
        progress: Progress::on_stderr(),
        interrupt,
        ..StackOptions::new(state_dir())
    };
    spawn_blocking(move || Stack::up(&options))
        .await
        .context("the thread that starts servers ended")?
}

/// Of this process alone.
fn state_dir() -> PathBuf {
    std::env::temp_dir().join(format!("order-bench-{}", std::process::id()))
}

async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("listen for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

async fn measure(args: &BenchArgs, stack: &Stack) -> anyhow::Result<Report> {
    let wants = |part| args.only.contains(&part);
    let mut report = Report::new(args);
    if wants(Part::Drain) || wants(Part::Memory) {
        report.drain = Some(drain::measure(args, stack).await.context("part a")?);
    }
    if wants(Part::Chain) {
        report.chain = Some(chain::measure(args, stack).await.context("part b")?);
    }
    if wants(Part::Http) {
        report.http = Some(http::measure(args, stack).await.context("part c")?);
    }
    if wants(Part::Supervision) {
        report.supervision = Some(supervision::measure(args, stack).await.context("part e")?);
    }
    if wants(Part::Watched) {
        report.watched = Some(watched::measure(args, stack).await.context("part f")?);
    }
    Ok(report)
}

/// A pipeline of its own for a part.
async fn pipeline(stack: &Stack, name: &str) -> anyhow::Result<Pipeline> {
    let pipeline =
        Pipeline::separate(stack, name, &stack.state_dir().join("bench").join(name)).await?;
    pipeline.set_up(crate::pipeline::Setup::default()).await?;
    Ok(pipeline)
}

fn kafka_of(pipeline: &Pipeline) -> KafkaArgs {
    KafkaArgs {
        kafka_brokers: pipeline.brokers().to_owned(),
        topic_prefix: pipeline.prefix().clone(),
        kafka_config: None,
    }
}

fn database_of(pipeline: &Pipeline) -> anyhow::Result<PgConnectOptions> {
    let file = pipeline.directory().join("database-url");
    let url = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let options: PgConnectOptions = url.parse().context("read the URL of the database")?;
    Ok(options.disable_statement_logging())
}

/// What goes on, for the person at the terminal; results go to standard output.
fn say(line: &str) {
    eprintln!("{line}");
}

/// How often progress is asked for: short beside a drain, and a query costs a fraction of a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(50);
