//! `order-load run`: vegeta against a pipeline, judged on what became of the orders, not on the answers.
//!
//! Promises that the last line on standard output is the verdict, that the exit status is 0 only if it is `pass`, and
//! that Ctrl-C ends in order: nothing more is sent, what was accepted is followed to its end, and there is a report.

mod profile;
mod hit;
mod vegeta;
mod tally;
pub(crate) mod observed;
mod numbers;
mod judge;
mod look;
pub(crate) mod monitoring;
mod progress;
mod measure;
mod search;
mod report;
mod text;
mod page;
mod plot;
#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use schemas::Timestamp;
use stack::{Down, Ports, Stack, StackOptions};
use tokio::task::spawn_blocking;

use self::look::Eyes;
use self::measure::{Plan, Site};
use self::monitoring::{Fired, Monitoring};
use self::profile::Profile;
use self::report::Report;
use self::vegeta::Vegeta;
use crate::pipeline::{Pipeline, READY_PATIENCE, STOP_PATIENCE, Setup, free_addresses};
use crate::process::{Process, Spec};
use crate::signals::Signals;
use crate::usage::Subject;

/// As a shell counts an end by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What to run, and where.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Without --url everything runs on servers of its own, on free ports, which are removed afterwards.
With --url the pipeline is one that runs already: KAFKA_BROKERS, DATABASE_URL_FILE and TOPIC_PREFIX say where the auditor
finds it, as they do for its own programs.

Exit status: 0 if the verdict is pass; 130 after Ctrl-C; 1 otherwise."
)]
pub struct RunArgs {
    /// A profile of load/profiles (smoke, steady, ramp, burst, soak, hot-sku, mixed, limit), or the path of one.
    #[arg(long, default_value = "smoke", value_name = "NAME|FILE")]
    pub profile: String,

    /// The API of a running pipeline.
    #[arg(long)]
    pub url: Option<String>,

    /// With --url: where order-producer answers /metrics.
    #[arg(long, default_value = "127.0.0.1:9101", value_name = "ADDRESS")]
    pub producer_admin: SocketAddr,

    /// With --url: where order-consumer answers /metrics.
    #[arg(long, default_value = "127.0.0.1:9102", value_name = "ADDRESS")]
    pub consumer_admin: SocketAddr,

    /// A Prometheus that watches the pipeline: alerts that begin to fire meanwhile are part of the verdict.
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,

    /// The Pushgateway that this Prometheus reads: the run appears on the board "Load run" and as annotations.
    #[arg(long, value_name = "URL", requires = "prometheus")]
    pub pushgateway: Option<String>,

    /// Same seed, same orders.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Where report.html, report.json and vegeta's results go; a folder of the run in target/load when absent.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// The report.json of an earlier run, to compare with.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,

    /// The report as JSON on standard output, before the verdict.
    #[arg(long)]
    pub json: bool,
}

/// Runs a profile, reports, and answers with the verdict.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let profile = Profile::find(&args.profile)?;
    let earlier = args.compare.as_deref().map(report::earlier).transpose()?;
    let signals = Signals::listen()?;
    let interrupt = signals.interrupt();
    let vegeta = spawn_blocking(|| Vegeta::installed(interrupt)).await;
    let vegeta = vegeta.context("the thread that installs vegeta ended")??;
    let id = uuid::Uuid::new_v4().simple().to_string();
    let name = args.profile.rsplit('/').next().unwrap_or_default().trim_end_matches(".toml");
    let run = format!("{name}-{}", &id[..8]);
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from("target/load").join(&run));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let plan = Plan {
        run,
        steps: profile.steps(),
        traffic: profile.traffic.traffic(args.seed),
        budget: profile.budget.clone(),
        folder,
    };
    let monitoring = args
        .prometheus
        .as_deref()
        .map(|prometheus| Monitoring::new(prometheus, args.pushgateway.as_deref()));
    let monitoring = monitoring.transpose()?;
    let begun_at = Timestamp::now();
    if let Some(monitoring) = &monitoring {
        monitoring.begun(&plan.run, begun_at).await?;
    }
    let measured = match &args.url {
        Some(url) => {
            let site = running(&args, url, &plan)?;
            search::measure(&site, &vegeta, &profile, &plan, &signals).await
        }
        None => on_servers_of_its_own(&vegeta, &profile, &plan, &signals).await,
    };
    let trials = match measured {
        // Before anything was sent there is nothing to report.
        Err(_) if signals.came() => return Ok(ExitCode::from(INTERRUPTED)),
        measured => measured?,
    };
    let ended_at = Timestamp::now();
    let fired = alerts(monitoring.as_ref(), begun_at, ended_at).await;
    let (fired, unread) = fired.map_or_else(|error| (None, Some(error)), |fired| (fired, None));
    let mut report = Report::new(&args, profile, &plan, trials, fired, earlier)?;
    if let Some(error) = unread {
        report.verdict.fail(format!("alerts could not be read: {error:#}"));
    }
    let pass = report.verdict.pass;
    let interrupted = report.observed().interrupted;
    finish(&args, &plan, &report)?;
    // Last, because it waits for a scrape, and whatever comes of that, there is a report.
    if let Some(monitoring) = &monitoring {
        monitoring.ended(&plan.run, ended_at, report.observed(), pass).await?;
    }
    Ok(match (interrupted, pass) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// `None` where nobody watches.
async fn alerts(
    monitoring: Option<&Monitoring>,
    from: Timestamp,
    to: Timestamp,
) -> anyhow::Result<Option<Vec<Fired>>> {
    match monitoring {
        Some(monitoring) => Ok(Some(monitoring.fired(from, to).await?)),
        None => Ok(None),
    }
}

fn finish(args: &RunArgs, plan: &Plan, report: &Report) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report).context("write the report")?;
    for (name, text) in [("report.json", &json), ("report.html", &page::html(report))] {
        let file = plan.folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    let said = if args.json { json } else { text::text(report, &plan.folder) };
    let last = judge::last_line(report.observed(), report.verdict.pass);
    let mut out = stdout().lock();
    writeln!(out, "{said}\n{last}").and_then(|()| out.flush()).context("write the report")
}

/// A pipeline that somebody else runs.
fn running(args: &RunArgs, url: &str, plan: &Plan) -> anyhow::Result<Site> {
    let pipeline = Pipeline::from_environment(&plan.folder)?;
    let prefix = pipeline.prefix().clone();
    let eyes = Eyes::new(args.producer_admin, args.consumer_admin, prefix)?;
    Ok(Site { pipeline, url: url.to_owned(), eyes, subjects: Vec::new(), is_own: false })
}

/// Brings servers and programs up, and takes them down whatever happens.
async fn on_servers_of_its_own(
    vegeta: &Vegeta,
    profile: &Profile,
    plan: &Plan,
    signals: &Signals,
) -> anyhow::Result<Vec<search::Trial>> {
    let options = StackOptions {
        ports: Ports::Free,
        only: vec!["kafka".to_owned(), "postgres".to_owned()],
        progress: stack::Progress::on_stderr(),
        interrupt: signals.interrupt(),
        ..StackOptions::new(std::env::temp_dir().join(format!("order-load-{}", plan.run)))
    };
    let stack = spawn_blocking(move || Stack::up(&options))
        .await
        .context("the thread that starts servers ended")??;
    let measured = on_stack(&stack, vegeta, profile, plan, signals).await;
    say("taking the servers down");
    let down = spawn_blocking(move || stack.down(Down::RemoveEverything))
        .await
        .context("the thread that stops servers ended")?;
    let measured = measured?;
    down.context("take the servers down")?;
    Ok(measured)
}

async fn on_stack(
    stack: &Stack,
    vegeta: &Vegeta,
    profile: &Profile,
    plan: &Plan,
    signals: &Signals,
) -> anyhow::Result<Vec<search::Trial>> {
    let mut pipeline = Pipeline::separate(stack, "load", &plan.folder).await?;
    pipeline.keep_from_terminal();
    pipeline.set_up(Setup::default()).await?;
    let (site, programs) = start(pipeline, Subject::servers(stack)?, &[]).await?;
    let measured = search::measure(&site, vegeta, profile, plan, signals).await;
    let stopped =
        programs.into_iter().map(|mut program| async move { program.stop(STOP_PATIENCE).await });
    let stopped: anyhow::Result<()> =
        futures::future::join_all(stopped).await.into_iter().collect();
    let forgotten = site.pipeline.forget_password();
    let measured = measured?;
    stopped.context("stop the programs")?;
    forgotten?;
    Ok(measured)
}

/// The programs of a pipeline, ready; only `stages` of them when any is named.
async fn start(
    pipeline: Pipeline,
    mut subjects: Vec<Subject>,
    stages: &[&str],
) -> anyhow::Result<(Site, [Process; 2])> {
    let [api, producer_admin, consumer_admin] = free_addresses()?;
    let specs: [Spec; 2] = [
        pipeline.producer(api, producer_admin),
        pipeline.stages("consumer", stages, consumer_admin),
    ];
    let mut programs = specs.map(Process::start).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for program in &mut programs {
        program.ready(READY_PATIENCE).await?;
    }
    let programs: [Process; 2] =
        programs.try_into().map_err(|_| anyhow::anyhow!("there are two programs"))?;
    for (name, program) in ["order-producer", "order-consumer"].into_iter().zip(&programs) {
        subjects.push(Subject::process(name, program.id())?);
    }
    let eyes = Eyes::new(producer_admin, consumer_admin, pipeline.prefix().clone())?;
    let site = Site { pipeline, url: format!("http://{api}"), eyes, subjects, is_own: true };
    Ok((site, programs))
}

/// What goes on, for the person at the terminal; results go to standard output.
fn say(line: &str) {
    eprintln!("{line}");
}
