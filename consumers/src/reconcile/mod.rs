//! The auditor: reads every topic and every table and proves that each order placed came to exactly one end.
//!
//! Independent on purpose: it shares nothing with the stages but the wire contract, joins no consumer group and writes
//! nothing. How it stays right while the pipeline works:
//!
//! 1. the ends of all partitions are taken, and every record before them is read;
//! 2. the tables are read as of one later moment, so each event that was read has its row;
//! 3. whatever was put in since is read too: its orders are moving, and not judged.
//!
//! What is missing is lost only when the pipeline is quiet (nothing to apply, nothing to tell, nothing put in since).

mod states;
mod ledger;
mod topics;
mod progress;
mod tables;
mod rules;
mod supervision;
mod audit;
mod report;
mod push;
mod schedule;
mod since;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use producers::kafka::KafkaArgs;
use schemas::{OrderId, Topic};
use sqlx::postgres::PgConnectOptions;
use workflows::Supervisor;

use self::audit::{World, audit};
use self::ledger::Ledger;
use self::progress::Backlog;
use self::report::Report;
use self::since::Since;
use self::supervision::{Counts, Expected, Workflow};
use self::topics::{Bounds, Offsets, Topics};
use crate::indicator::Indicator;
use crate::supervision::options::{Supervise, SupervisionArgs};

/// How often it is asked whether the pipeline is quiet.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// What to look at and how to tell.
#[derive(Args, Clone, Debug)]
pub struct ReconcileArgs {
    /// For programs: the whole report as JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// Wait for at most this long until every order placed has come to its end (90, 90s, 5m, 1h).
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,

    /// Most ids shown per finding.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub max_ids: usize,

    /// Only look at orders placed since then: an RFC 3339 time, or a duration before each run (30m, 2h, 7d).
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,

    /// Push what was found to this Pushgateway, for alerts: as a batch job, say every hour. Its exit status then says whether
    /// anything is wrong; orders on their way, of which a pipeline at work always has some, are not.
    #[arg(long, env = "PUSHGATEWAY_URL", value_name = "URL")]
    pub push: Option<String>,

    /// Stay, and run again so long after each beginning: for where nothing else runs jobs by the clock.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "push")]
    pub every: Option<Duration>,

    /// Do not look: take away what this job has pushed, because it will not run again and nobody should miss it.
    #[arg(long, requires = "push", conflicts_with_all = ["every", "wait", "since", "json"])]
    pub retire: bool,

    /// Look at the orders' workflows in Temporal as well.
    #[arg(long)]
    pub workflows: bool,

    #[command(flatten)]
    pub supervision: SupervisionArgs,
}

/// Audits, prints the report, and answers whether everything is reconciled; with `--every`, until told to stop.
pub async fn run(
    args: &ReconcileArgs,
    kafka: &KafkaArgs,
    db: PgConnectOptions,
) -> anyhow::Result<bool> {
    match (&args.push, args.every) {
        (Some(gateway), _) if args.retire => push::retire(gateway).await.map(|()| true),
        (_, Some(every)) => {
            let run = || once(args, kafka, db.clone());
            schedule::repeat(every, run).await.map(|()| true)
        }
        _ => once(args, kafka, db).await,
    }
}

async fn once(
    args: &ReconcileArgs,
    kafka: &KafkaArgs,
    db: PgConnectOptions,
) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let deadline = begun + args.wait.unwrap_or_default();
    let supervisor = args.workflows.then(|| args.supervision.reader()).transpose()?;
    let indicator = Indicator::on_stderr();
    let mut auditor = Auditor { args, supervisor, kafka, db, topics: None, indicator };
    let report = loop {
        if args.wait.is_some() {
            auditor.wait_until_quiet(deadline).await;
        }
        let report = auditor.audit().await?;
        if report.is_settled() || Instant::now() >= deadline {
            break report;
        }
        tokio::time::sleep(POLL_EVERY).await;
    };
    auditor.indicator.finish();
    // Taking leave of the broker may block.
    let farewell = tokio::task::spawn_blocking(move || drop(auditor.topics.take()));
    print(&report, args.json)?;
    if let Some(gateway) = &args.push {
        push::push(gateway, &report, begun.elapsed().as_secs_f64()).await?;
    }
    farewell.await.context("the thread that closes the consumer ended early")?;
    Ok(if args.push.is_some() { report.is_sound() } else { report.reconciled })
}

struct Auditor<'a> {
    args: &'a ReconcileArgs,
    /// Where the workflows are, if they are looked at.
    supervisor: Option<Supervisor>,
    kafka: &'a KafkaArgs,
    db: PgConnectOptions,
    /// Kept from one reading to the next. `None` while it is lent to a thread, and after it failed.
    topics: Option<Topics>,
    indicator: Indicator,
}

impl Auditor<'_> {
    /// Returns when nothing is left to do, or the time is up. A dependency that is down is waited for as well.
    async fn wait_until_quiet(&mut self, deadline: Instant) {
        loop {
            match self.backlog().await {
                Ok(backlog) if backlog.is_empty() => return,
                Ok(Backlog { records, stages, outbox_rows }) => self.indicator.progress(&format!(
                    "waiting: {records} records to apply at {stages} stage(s), {outbox_rows} batches to tell"
                )),
                Err(error) => self.indicator.progress(&format!("waiting: {error:#}")),
            }
            if Instant::now() + POLL_EVERY >= deadline {
                return;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn backlog(&mut self) -> anyhow::Result<Backlog> {
        // In this order: an effect that was out when progress was read is before the ends that are asked for next.
        let progress = tables::progress(&self.db, &self.kafka.topic_prefix).await?;
        let bounds = self.with_topics(|topics| topics.bounds()).await?;
        Ok(progress.backlog(&bounds))
    }

    async fn audit(&mut self) -> anyhow::Result<Report> {
        // Before the topics: whatever a workflow closed for is in them.
        let workflows = self.workflows().await?;
        let since = self.args.since.map(|since| since.now().map(|time| time.as_micros() / 1000));
        let since = since.transpose()?;
        self.indicator.progress("reading the topics");
        let indicator = self.indicator.clone();
        let Reading { mut ledger, cut, behind_last } =
            self.with_topics(move |topics| read_topics(topics, since, &indicator)).await?;
        self.indicator.progress("reading the tables");
        let snapshot = tables::read(&self.db, &self.kafka.topic_prefix, &mut ledger).await?;
        for (order, stands) in workflows.iter().flatten() {
            ledger.workflow(*order, *stands);
        }
        self.indicator.progress("reading what came meanwhile");
        let ends = cut.ends.clone();
        let (ledger, bounds) = self
            .with_topics(move |topics| {
                let now = topics.bounds()?;
                topics.read_late(&ends, &now.ends, &mut ledger)?;
                Ok((ledger, now))
            })
            .await?;
        let read = Bounds { starts: cut.starts.clone(), ends: behind_last };
        let counts = workflows.as_deref().map(count);
        let quiet = cut.ends == bounds.ends
            && snapshot.progress.backlog(&read).is_empty()
            && counts.is_none_or(|counts| counts.open == 0);
        let expected = match self.args.supervision.supervise {
            Supervise::All => Expected::All,
            Supervise::Exceptions => Expected::Exceptions,
        };
        let world = World {
            quiet,
            starts: cut.starts,
            snapshot,
            max_ids: self.args.max_ids,
            workflows: counts.map(|counts| (counts, expected)),
        };
        Ok(audit(&ledger, &world))
    }

    /// How the workflows stand; `None` when nobody asked.
    async fn workflows(&self) -> anyhow::Result<Option<Vec<(OrderId, Workflow)>>> {
        let Some(supervisor) = &self.supervisor else { return Ok(None) };
        self.indicator.progress("reading the workflows");
        supervision::read(supervisor).await.map(Some)
    }

    /// Runs `ask` on a thread that may block, with a connection that is made when there is none.
    async fn with_topics<T: Send + 'static>(
        &mut self,
        ask: impl FnOnce(&Topics) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (topics, kafka) = (self.topics.take(), self.kafka.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let topics = topics.map_or_else(|| Topics::connect(&kafka), Ok)?;
            let answer = ask(&topics)?;
            anyhow::Ok((topics, answer))
        });
        let (topics, answer) =
            asked.await.context("the thread that reads the topics ended early")??;
        self.topics = Some(topics);
        Ok(answer)
    }
}

/// The topics up to the cut.
struct Reading {
    ledger: Ledger,
    cut: Bounds,
    behind_last: Offsets,
}

fn read_topics(
    topics: &Topics,
    since_ms: Option<i64>,
    indicator: &Indicator,
) -> anyhow::Result<Reading> {
    let cut = topics.bounds()?;
    let starts = match since_ms {
        Some(time) => topics.offsets_at(time, &cut.ends)?,
        None => cut.starts.clone(),
    };
    let of_orders = cut.ends.iter().filter(|((topic, _), _)| *topic == Topic::Orders);
    let records: i64 = of_orders.map(|(place, end)| (end - starts[place]).max(0)).sum();
    // Every order has a record there, so nothing has to grow while it is read.
    let mut ledger = Ledger::with_capacity(usize::try_from(records)?, since_ms.is_some());
    let behind_last = topics.read(&starts, &cut.ends, &mut ledger, indicator)?;
    Ok(Reading { ledger, cut, behind_last })
}

fn count(workflows: &[(OrderId, Workflow)]) -> Counts {
    let open = workflows.iter().filter(|(_, stands)| *stands == Workflow::Open).count() as u64;
    Counts { open, closed: workflows.len() as u64 - open }
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report).context("writing the report")?;
        writeln!(out).context("writing the report")
    } else {
        out.write_all(report.text().as_bytes()).context("writing the report")
    }
}

/// A number of seconds, or a number with a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => {
            return Err(
                "a duration is a number of seconds, or a number with s, m, h or d".to_owned()
            );
        }
    };
    let seconds: u64 =
        digits.parse().map_err(|_| "a duration starts with a whole number".to_owned())?;
    seconds
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(|| "too long a duration".to_owned())
}
