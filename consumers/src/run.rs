//! `order-consumer run`: starts stages in this process and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use producers::kafka::KafkaArgs;
use producers::publisher::{Publisher, PublisherSettings};
use sqlx::postgres::PgConnectOptions;
use telemetry::{AdminArgs, Metrics, Readiness, Shutdown, Tracer, admin};

use crate::config::{RunnerConfig, StageConfig};
use crate::runner::StageContext;
use crate::runner::metrics::Families;
use crate::stages::{CATALOGUE, Entry, find};
use crate::standings::Standings;

/// Which stages to run, and how.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Stage to run; may be given several times. See --list for the names.
    #[arg(long = "stage", value_name = "NAME", conflicts_with = "all")]
    pub stages: Vec<String>,

    /// Run every stage in this process.
    #[arg(long)]
    pub all: bool,

    /// With --all: a stage to leave out; may be given several times. Without Temporal, leave out workflow.
    #[arg(long = "except", value_name = "NAME", requires = "all")]
    pub except: Vec<String>,

    /// Print the stages with what they read and write, and leave.
    #[arg(long)]
    pub list: bool,

    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub runner: RunnerConfig,
    #[command(flatten)]
    pub stage: StageConfig,
}

/// Runs until told to stop, or until a stage must not go on. `false`: some stage stopped by itself.
pub async fn run(
    args: &RunArgs,
    kafka: KafkaArgs,
    database: PgConnectOptions,
    tracer: Tracer,
) -> anyhow::Result<bool> {
    let entries = chosen(args)?;
    let shutdown = Shutdown::on_signals(args.runner.drain())?;
    let mut metrics = Metrics::new("order-consumer", env!("CARGO_PKG_VERSION"));
    let families = Families::register(metrics.registry());
    let standings = Standings::default();
    metrics.registry().register_collector(Box::new(standings.clone()));
    tokio::spawn(standings.keep(database.clone(), shutdown.clone()));
    let readiness = Readiness::default();
    let address = args.admin.admin_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9102)));
    let publisher = Publisher::connect(&kafka, &effects_settings(), "order-consumer")?;
    let context = StageContext {
        kafka,
        database,
        publisher,
        config: args.runner.clone(),
        metrics: families,
        tracer,
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
        owner: owner(),
    };
    let mut running = Vec::new();
    for entry in &entries {
        running.push(entry.start(&args.stage, context.clone())?);
    }
    let bound = admin::serve(address, Arc::new(metrics), readiness, shutdown.clone()).await?;
    let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
    tracing::info!(stages = names.join(" "), admin = %bound, "running");
    let mut well = true;
    for stage in running {
        let name = stage.name;
        if let Err(why) = stage.stopped().await {
            well = false;
            tracing::error!(stage = name, why, "the stage stopped; the others go on");
        }
    }
    if !shutdown.begun() {
        bail!("every stage has stopped by itself; see the log");
    }
    tracing::info!("stopped");
    Ok(well)
}

/// The catalogue, a line per stage.
pub fn list() -> String {
    CATALOGUE
        .iter()
        .map(|entry| {
            let inputs: Vec<&str> = entry.inputs.iter().map(|input| input.as_str()).collect();
            let output = entry.output.map_or("-", |topic| topic.name());
            format!("{:<10} reads {}  writes {output}\n", entry.name, inputs.join(" "))
        })
        .collect()
}

fn chosen(args: &RunArgs) -> anyhow::Result<Vec<&'static Entry>> {
    let names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
    let known = |name: &String| {
        find(name)
            .with_context(|| format!("there is no stage {name}; there are {}", names.join(", ")))
    };
    if args.all {
        for name in &args.except {
            known(name)?;
        }
        let wanted = |entry: &&Entry| !args.except.iter().any(|name| name == entry.name);
        return Ok(CATALOGUE.iter().filter(wanted).collect());
    }
    if args.stages.is_empty() {
        bail!("say which stages to run: --all, or --stage with one of {}", names.join(", "));
    }
    let mut entries: Vec<&'static Entry> = Vec::new();
    for name in &args.stages {
        let entry = known(name)?;
        if !entries.iter().any(|known| known.name == entry.name) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Effects may wait for a broker that comes back; nobody holds an HTTP request open for them.
fn effects_settings() -> PublisherSettings {
    PublisherSettings {
        delivery_timeout: std::time::Duration::from_secs(30),
        ..PublisherSettings::default()
    }
}

/// Tells one process from another in `stage_progress`.
fn owner() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}
