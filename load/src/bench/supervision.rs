//! Part e: what supervision costs. Signals into Temporal beside those of a bare client, and what orders feel of the stage
//! that sends them, with Temporal and without.

mod bare;

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use producers::generate::{Generator, Mix};
use schemas::Timestamp;
use serde::Serialize;
use stack::Stack;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use self::bare::Bare;
use super::progress::{Observer, Work};
use super::sample::{Sample, median};
use super::{BenchArgs, CONSUMER, fill, orders, say};
use crate::eventually::eventually;
use crate::pipeline::{Latency, Pipeline, STOP_PATIENCE};
use crate::usage::{self, Subject};

const TEMPORAL: &str = "temporal";
const PATIENCE: Duration = Duration::from_secs(600);
/// Of the stage, and of the bare client.
const CALLS: usize = 32;
/// Signals of each side in a round: the development server takes some hundred a second.
const SIGNALS: u32 = 3_000;
/// A rate that the machine takes with ease, so that latency is the pipeline's and not a queue's.
const ORDERS_PER_SECOND: u32 = 100;
const ORDERS_SECONDS: u32 = 10;
/// Signals that are out: decided, and no longer in the outbox.
const TOLD: &str = "select coalesce((select sum(next_offset) from stage_progress where stage = 'workflow'), 0)::bigint
                         - coalesce((select sum(effect_count) from outbox where stage = 'workflow'), 0)::bigint";

/// What part e found: rates in signals per second, CPU in seconds per thousand.
#[derive(Debug, Serialize)]
pub(super) struct Supervision {
    pub(super) signals: u32,
    pub(super) stage: Sample,
    pub(super) bare: Sample,
    /// Accepted to final, by what runs beside.
    pub(super) felt: Vec<Felt>,
    pub(super) faults: Vec<String>,
}

/// Latency of orders, in seconds; medians over rounds.
#[derive(Debug, Serialize)]
pub(super) struct Felt {
    pub(super) name: &'static str,
    pub(super) p50_seconds: f64,
    pub(super) p95_seconds: f64,
}

pub(super) async fn measure(args: &BenchArgs, stack: &Stack) -> anyhow::Result<Supervision> {
    let mut faults = Vec::new();
    let (mut of_stage, mut of_bare) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        // Half before and half after: the server's database grows meanwhile.
        let before = bare(stack, SIGNALS / 2).await?;
        let sample = stage(stack).await?;
        let after = bare(stack, SIGNALS / 2).await?;
        let both = Sample::median(&[before, after]);
        let (ours, theirs) = (sample.per_second, both.per_second);
        say(&format!(
            "e: signals, round {round} of {}: stage {ours:.0}/s, bare client {theirs:.0}/s",
            args.rounds
        ));
        of_stage.push(sample);
        of_bare.push(both);
    }
    let names =
        ["without the workflow stage", "with it, Temporal works", "with it, Temporal stopped"];
    let mut latencies: [Vec<Latency>; 3] = Default::default();
    for _ in 0..args.rounds {
        for (latency, latencies) in felt(stack, &mut faults).await?.into_iter().zip(&mut latencies)
        {
            latencies.push(latency);
        }
    }
    let felt = names.into_iter().zip(latencies).map(|(name, latencies)| Felt {
        name,
        p50_seconds: median(latencies.iter().map(|latency| latency.p50_seconds)),
        p95_seconds: median(latencies.iter().map(|latency| latency.p95_seconds)),
    });
    Ok(Supervision {
        signals: SIGNALS,
        stage: Sample::median(&of_stage),
        bare: Sample::median(&of_bare),
        felt: felt.collect(),
        faults,
    })
}

/// The workflow stage drains a topic of placed orders: each is a start and a signal.
async fn stage(stack: &Stack) -> anyhow::Result<Sample> {
    let mut pipeline = super::pipeline(stack, "signals").await?;
    pipeline.supervise(stack)?;
    fill::fill(&pipeline, &orders::placed(SIGNALS)?).await?;
    let mut observer = Observer::connect(stack, &super::database_of(&pipeline)?).await?;
    let calls = CALLS.to_string();
    let mut process = pipeline.launch_stages("workflow", &["workflow"], |spec| {
        spec.arguments(["--temporal-calls", &calls])
    })?;
    let subjects =
        [vec![Subject::child("client", CONSUMER).await?], Subject::servers(stack)?].concat();
    let work = Work { progress: TOLD, amount: i64::from(SIGNALS), per: 1e3, patience: PATIENCE };
    let sample = observer.rate(work, &mut process, &subjects).await?;
    process.stop(STOP_PATIENCE).await?;
    Ok(sample)
}

/// The same calls from a loop that does nothing else.
async fn bare(stack: &Stack, signals: u32) -> anyhow::Result<Sample> {
    let bare = Bare::connect(stack).await?;
    let subjects = [vec![Subject::this("client")?], Subject::servers(stack)?].concat();
    let (before, begun) = (usage::cpu(&subjects)?, Instant::now());
    bare.signal(signals, CALLS).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = usage::cpu(&subjects)?;
    Ok(Sample {
        per_second: f64::from(signals) / seconds,
        cpu: usage::per(f64::from(signals) / 1e3, &before, &after),
    })
}

/// How long orders take: without the stage, with it, and with it while Temporal is away.
async fn felt(stack: &Stack, faults: &mut Vec<String>) -> anyhow::Result<[Latency; 3]> {
    let alone = super::pipeline(stack, "unsupervised").await?;
    let mut stages = alone.start_stages("unsupervised", &[], |spec| spec).await?;
    let without = latency(&alone, "without the stage", faults).await?;
    stages.stop(STOP_PATIENCE).await?;

    let mut pipeline = super::pipeline(stack, "supervised").await?;
    pipeline.supervise(stack)?;
    let mut worker = pipeline.start_worker("worker", |spec| spec).await?;
    let mut stages = pipeline.start_stages("supervised", &[], |spec| spec).await?;
    let with = latency(&pipeline, "with Temporal", faults).await?;
    worker.stop(STOP_PATIENCE).await?;
    on(stack, |stack| stack.stop(TEMPORAL)).await?;
    let away = latency(&pipeline, "Temporal stopped", faults).await?;
    stages.stop(STOP_PATIENCE).await?;
    on(stack, |stack| stack.restart(TEMPORAL)).await?;
    Ok([without, with, away])
}

async fn on(
    stack: &Stack,
    act: impl FnOnce(&Stack) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let stack = Stack::attach(stack.state_dir())?;
    spawn_blocking(move || act(&stack)).await.context("the thread that moves a server ended")?
}

/// Places orders at a steady rate, and returns how long they took.
async fn latency(
    pipeline: &Pipeline,
    name: &str,
    faults: &mut Vec<String>,
) -> anyhow::Result<Latency> {
    let mut producer = pipeline.start_producer(|spec| spec).await?;
    let mut tables = pipeline.tables().await?;
    let mut accepted = tables.final_orders().await?;
    let run = uuid::Uuid::new_v4().simple().to_string();
    // The first ones pay for connections and plans.
    for (part, seconds) in [("warm", 2), ("counted", ORDERS_SECONDS)] {
        let since = Timestamp::now().as_micros();
        let orders = ORDERS_PER_SECOND * seconds;
        let client = &producer.client;
        let mut turns = tokio::time::interval(Duration::from_secs(1) / ORDERS_PER_SECOND);
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let turns = stream::unfold(turns, async |mut turns| {
            turns.tick().await;
            Some(((), turns))
        });
        let orders_in_turn = stream::iter((0..orders).zip(Generator::new(Mix::default())));
        let placing = turns.zip(orders_in_turn).map(|((), (number, order))| {
            let key = format!("{run}-{part}-{number}");
            async move { client.place(&order, &key, PATIENCE).await.map(|_| ()) }
        });
        placing.buffer_unordered(CALLS).try_for_each(async |()| Ok(())).await?;
        // Not the auditor: it waits for workflows as well, and they may have nobody to close them.
        let before = accepted;
        accepted += u64::from(orders);
        let ending = eventually(PATIENCE, "every order is final", async || {
            let ended = tables.final_orders().await?;
            anyhow::ensure!(ended >= accepted, "{ended} of {accepted} orders are final");
            Ok(ended)
        });
        let ended = ending.await?;
        if ended != accepted {
            faults.push(format!("{name}: {} orders ended, not {orders}", ended - before));
        }
        if part == "counted" {
            let latency = tables.latency(since).await?.context("some order has ended")?;
            producer.process.stop(STOP_PATIENCE).await?;
            say(&format!(
                "e: {name}: accepted to final p50 {:.0} ms, p95 {:.0} ms",
                latency.p50_seconds * 1e3,
                latency.p95_seconds * 1e3
            ));
            return Ok(latency);
        }
    }
    anyhow::bail!("nothing was counted")
}
