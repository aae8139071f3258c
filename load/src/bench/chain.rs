//! Part b: every stage in one process takes orders to their end; nobody speaks HTTP.

use std::time::Duration;

use serde::Serialize;
use stack::Stack;

use super::progress::Observer;
use super::sample::Sample;
use super::{BenchArgs, CONSUMER, fill, orders, say};
use crate::pipeline::STOP_PATIENCE;
use crate::usage::{self, Subject};

const PATIENCE: Duration = Duration::from_secs(900);
const BEGUN: &str = "select coalesce(sum(next_offset), 0)::bigint from stage_progress";
/// Kept by the projection; counting orders would compete with it.
const FINAL: &str = "select coalesce(sum(orders), 0)::bigint from order_status_counts
                      where status in ('shipped', 'rejected', 'declined', 'cancelled')";

/// What part b found: rate in orders per second, CPU in seconds per thousand orders.
#[derive(Debug, Serialize)]
pub(super) struct Chain {
    pub(super) orders: u32,
    pub(super) all_stages: Sample,
    pub(super) faults: Vec<String>,
}

pub(super) async fn measure(args: &BenchArgs, stack: &Stack) -> anyhow::Result<Chain> {
    let (mut samples, mut faults) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        let sample = one(args, stack, &mut faults).await?;
        let cpu = sample.cpu_total();
        say(&format!(
            "b: all stages, round {round} of {}: {:.0}/s, {cpu:.2} CPU s per 1000",
            args.rounds, sample.per_second
        ));
        samples.push(sample);
    }
    Ok(Chain { orders: args.orders, all_stages: Sample::median(&samples), faults })
}

async fn one(args: &BenchArgs, stack: &Stack, faults: &mut Vec<String>) -> anyhow::Result<Sample> {
    say(&format!("b: filling a topic with {} orders", args.orders));
    let pipeline = super::pipeline(stack, "chain").await?;
    fill::fill(&pipeline, &orders::placed(args.orders)?).await?;
    let mut observer = Observer::connect(stack, &super::database_of(&pipeline)?).await?;
    // The tables are as a migration left them: what the planner believes about them is part of what is measured.
    observer.checkpoint().await?;
    let orders = i64::from(args.orders);

    let mut process = pipeline.launch_stages("chain", &[], |spec| spec)?;
    let subjects =
        [vec![Subject::child("client", CONSUMER).await?], Subject::servers(stack)?].concat();
    let first = observer.until(BEGUN, PATIENCE, &mut process, |count| count > 0).await?;
    let before = usage::cpu(&subjects)?;
    let last = observer.until(FINAL, PATIENCE, &mut process, |count| count >= orders).await?;
    let after = usage::cpu(&subjects)?;
    process.stop(STOP_PATIENCE).await?;

    for query in [
        FINAL,
        "select count(*) from orders where status in ('shipped', 'rejected', 'declined')",
        "select count(*) from reservations",
    ] {
        let found = observer.number(query).await?;
        if found != orders {
            faults.push(format!("{query}: {found}, not {orders}"));
        }
    }
    let count = orders as f64;
    Ok(Sample {
        per_second: count / (last.at - first.at).as_secs_f64(),
        cpu: usage::per(count / 1e3, &before, &after),
    })
}
