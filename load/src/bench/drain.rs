//! Part a: the order stage drains a filled topic, in turns with the limits on the same server. Part d: its memory
//! meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use schemas::orders::OrderPlaced;
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use stack::Stack;

use super::limits::{self, Limit};
use super::progress::{Observer, Work};
use super::sample::{Sample, median};
use super::{BenchArgs, CONSUMER, fill, orders, say};
use crate::pipeline::{Pipeline, STOP_PATIENCE};
use crate::usage::{Subject, Watch};

/// Far beyond what a drain takes.
const PATIENCE: Duration = Duration::from_secs(600);
pub(super) const WRITTEN: &[&str] =
    &["orders", "order_events", "order_status_counts", "stage_progress"];
const LIMIT_WRITTEN: &[&str] = &["orders_limit"];
const PROGRESS: &str =
    "select coalesce(sum(next_offset), 0)::bigint from stage_progress where stage = 'order'";

/// A topic of `events` for the order stage.
pub(super) fn work(events: i64) -> Work {
    Work { progress: PROGRESS, amount: events, per: 1e6, patience: PATIENCE }
}

/// What part a found: rates in events per second, CPU in seconds per million events.
#[derive(Debug, Serialize)]
pub(super) struct Drain {
    pub(super) events: u32,
    pub(super) stage: Sample,
    pub(super) upsert: Sample,
    pub(super) stage_sql: Sample,
    pub(super) to_upsert: f64,
    pub(super) to_stage_sql: f64,
    /// Events per transaction of the stage.
    pub(super) batch: f64,
    /// Resident bytes, by process.
    pub(super) memory: BTreeMap<&'static str, Memory>,
    pub(super) faults: Vec<String>,
}

/// Resident bytes over a drain: flat when the second half needs no more than the first.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Memory {
    pub(super) first_half: u64,
    pub(super) second_half: u64,
}

struct Bench<'a> {
    pipeline: Pipeline,
    database: PgConnectOptions,
    observer: Observer,
    servers: Vec<Subject>,
    orders: Vec<OrderPlaced>,
    memory: BTreeMap<&'static str, Memory>,
    batches: Vec<f64>,
    faults: Vec<String>,
    args: &'a BenchArgs,
}

pub(super) async fn measure(args: &BenchArgs, stack: &Stack) -> anyhow::Result<Drain> {
    say(&format!("a: filling a topic with {} orders", args.events));
    let pipeline = super::pipeline(stack, "drain").await?;
    let database = super::database_of(&pipeline)?;
    let mut bench = Bench {
        observer: Observer::connect(stack, &database).await?,
        servers: Subject::servers(stack)?,
        orders: orders::placed(args.events)?,
        memory: BTreeMap::new(),
        batches: Vec::new(),
        faults: Vec::new(),
        pipeline,
        database,
        args,
    };
    fill::fill(&bench.pipeline, &bench.orders).await?;
    bench.observer.execute(limits::CREATE_TABLE).await?;
    let (mut stage, mut upsert, mut stage_sql) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        upsert.push(
            bench
                .limit(Limit::Upsert, LIMIT_WRITTEN, "select count(*) from orders_limit", round)
                .await?,
        );
        stage.push(bench.stage(round).await?);
        stage_sql.push(
            bench.limit(Limit::StageSql, WRITTEN, "select count(*) from orders", round).await?,
        );
    }
    let ratio = |to: &[Sample]| {
        median(stage.iter().zip(to).map(|(stage, to)| stage.per_second / to.per_second))
    };
    Ok(Drain {
        events: args.events,
        to_upsert: ratio(&upsert),
        to_stage_sql: ratio(&stage_sql),
        stage: Sample::median(&stage),
        upsert: Sample::median(&upsert),
        stage_sql: Sample::median(&stage_sql),
        memory: bench.memory,
        batch: median(bench.batches),
        faults: bench.faults,
    })
}

impl Bench<'_> {
    async fn limit(
        &mut self,
        limit: Limit,
        tables: &'static [&'static str],
        count: &'static str,
        round: u32,
    ) -> anyhow::Result<Sample> {
        self.observer.fresh(tables).await?;
        let sample = limits::measure(limit, &self.orders, &self.database, &self.servers).await?;
        self.told(&format!("{limit:?} limit"), round, &sample);
        let rows = self.observer.number(count).await?;
        ensure!(
            rows == i64::from(self.args.events),
            "the limit wrote {rows} rows of {}",
            self.args.events
        );
        self.observer.fresh(tables).await?;
        Ok(sample)
    }

    async fn stage(&mut self, round: u32) -> anyhow::Result<Sample> {
        self.observer.fresh(WRITTEN).await?;
        let work = work(i64::from(self.args.events));
        let mut process = self.pipeline.launch_stages("drain", &["order"], |spec| spec)?;
        let subjects = [&[Subject::child("client", CONSUMER).await?], &self.servers[..]].concat();
        let watch = Watch::start(subjects.clone());
        let sample = self.observer.rate(work, &mut process, &subjects).await?;
        self.remember(&watch);
        drop(watch);
        self.told("order stage", round, &sample);
        let batches = process.metric("stage_batch_events_count", &[("stage", "order")]).await?;
        self.batches.push(work.amount as f64 / batches.unwrap_or(1.0));
        process.stop(STOP_PATIENCE).await?;
        self.check().await?;
        Ok(sample)
    }

    /// Every event once, every order placed.
    async fn check(&mut self) -> anyhow::Result<()> {
        let expected = i64::from(self.args.events);
        for query in [
            PROGRESS,
            "select count(*) from orders where status = 'placed'",
            "select count(*) from order_events",
            "select coalesce(sum(orders), 0)::bigint from order_status_counts where status = 'placed'",
        ] {
            let found = self.observer.number(query).await?;
            if found != expected {
                self.faults.push(format!("{query}: {found}, not {expected}"));
            }
        }
        Ok(())
    }

    fn remember(&mut self, watch: &Watch) {
        for (name, seen) in watch.seen() {
            let (first, second) = seen.split_at(seen.len() / 2);
            let most = |half: &[u64]| half.iter().copied().max().unwrap_or(0);
            let new = Memory { first_half: most(first), second_half: most(second) };
            let known = self.memory.entry(name).or_insert(new);
            if new.first_half.max(new.second_half) > known.first_half.max(known.second_half) {
                *known = new;
            }
        }
    }

    fn told(&self, what: &str, round: u32, sample: &Sample) {
        let rounds = self.args.rounds;
        say(&format!(
            "a: {what}, round {round} of {rounds}: {:.0}/s, {:.2} CPU s per million",
            sample.per_second,
            sample.cpu_total()
        ));
    }
}
