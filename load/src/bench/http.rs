//! Part c: how many orders the API accepts, and how long each request takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use schemas::Topic;
use serde::Serialize;
use stack::Stack;

use super::http_client::{Answers, Kind, Requests, send};
use super::sample::{Sample, median, quantile};
use super::{BenchArgs, PRODUCER, kafka_of, say};
use crate::eventually::eventually;
use crate::pipeline::{Pipeline, STOP_PATIENCE};
use crate::usage::{self, Subject};

/// Connections, the broker's code and the first segments are warm after this.
const WARM_UP: Duration = Duration::from_secs(2);
const BROKER_PATIENCE: Duration = Duration::from_secs(10);
const LOADS: [(&str, Kind, usize); 3] = [
    ("single, 64 connections", Kind::Single, 64),
    ("single with a key, 64 connections", Kind::Keyed, 64),
    ("batches of 500, 8 connections", Kind::Batch, 8),
];

/// What part c found.
#[derive(Debug, Serialize)]
pub(super) struct Http {
    pub(super) loads: Vec<Load>,
    pub(super) faults: Vec<String>,
}

/// One kind of load: rate in accepted orders per second, CPU in seconds per thousand orders.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) accepted: Sample,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) refused: u64,
}

struct Round {
    sample: Sample,
    p50: u32,
    p99: u32,
    refused: u64,
}

pub(super) async fn measure(args: &BenchArgs, stack: &Stack) -> anyhow::Result<Http> {
    let pipeline = super::pipeline(stack, "http").await?;
    let mut producer = pipeline.start_producer(|spec| spec).await?;
    let subjects = [
        vec![Subject::child("producer", PRODUCER).await?, Subject::this("load client")?],
        Subject::servers(stack)?,
    ]
    .concat();
    let (mut rounds, mut faults): ([Vec<Round>; LOADS.len()], _) = (Default::default(), Vec::new());
    for round in 1..=args.rounds {
        for ((name, kind, connections), rounds) in LOADS.iter().zip(&mut rounds) {
            let requests = Arc::new(Requests::new(*kind)?);
            let before = records(&pipeline).await?;
            let warm = send(producer.api, &requests, *connections, WARM_UP).await?;
            let (cpu, begun) = (usage::cpu(&subjects)?, Instant::now());
            let answers =
                send(producer.api, &requests, *connections, Duration::from_secs(args.seconds))
                    .await?;
            let seconds = begun.elapsed().as_secs_f64();
            let used = usage::cpu(&subjects)?;
            let thousands = (answers.accepted as f64 / 1e3).max(0.001);
            let sample = Sample {
                per_second: answers.accepted as f64 / seconds,
                cpu: usage::per(thousands, &cpu, &used),
            };
            say(&format!(
                "c: {name}, round {round} of {}: {:.0}/s",
                args.rounds, sample.per_second
            ));
            rounds.push(Round {
                sample,
                p50: quantile(&answers.latencies, 0.5),
                p99: quantile(&answers.latencies, 0.99),
                refused: answers.refused,
            });
            check(name, &pipeline, before, &[warm, answers], &mut faults).await?;
        }
    }
    producer.process.stop(STOP_PATIENCE).await?;
    let loads = LOADS.iter().zip(rounds).map(|((name, ..), rounds)| Load {
        name,
        accepted: Sample::median(
            &rounds.iter().map(|round| round.sample.clone()).collect::<Vec<_>>(),
        ),
        p50_ms: median(rounds.iter().map(|round| f64::from(round.p50) / 1e3)),
        p99_ms: median(rounds.iter().map(|round| f64::from(round.p99) / 1e3)),
        refused: rounds.iter().map(|round| round.refused).sum(),
    });
    Ok(Http { loads: loads.collect(), faults })
}

/// The topic grew by exactly what was accepted; by more only where an answer left the outcome open.
async fn check(
    name: &str,
    pipeline: &Pipeline,
    before: i64,
    answers: &[Answers],
    faults: &mut Vec<String>,
) -> anyhow::Result<()> {
    let grown = u64::try_from(records(pipeline).await? - before).unwrap_or(0);
    let accepted: u64 = answers.iter().map(|answers| answers.accepted).sum();
    let open: u64 = answers.iter().map(|answers| answers.refused).sum();
    if !(accepted..=accepted + open).contains(&grown) {
        faults.push(format!(
            "{name}: the topic grew by {grown} records for {accepted} accepted orders"
        ));
    }
    Ok(())
}

/// Records in the topic of orders.
async fn records(pipeline: &Pipeline) -> anyhow::Result<i64> {
    // A topic that was just made may have no leader yet.
    eventually(BROKER_PATIENCE, "the topic's ends are known", async || count(pipeline).await).await
}

async fn count(pipeline: &Pipeline) -> anyhow::Result<i64> {
    let kafka = kafka_of(pipeline);
    let counting = tokio::task::spawn_blocking(move || {
        let topic = kafka.topic_prefix.topic(Topic::Orders);
        let consumer: BaseConsumer =
            kafka.client_config("order-load")?.create().context("create a Kafka consumer")?;
        let metadata =
            consumer.fetch_metadata(Some(&topic), BROKER_PATIENCE).context("ask for partitions")?;
        let partitions =
            metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
        let counts = partitions.iter().map(|partition| {
            let (start, end) =
                consumer.fetch_watermarks(&topic, partition.id(), BROKER_PATIENCE)?;
            anyhow::Ok(end - start)
        });
        counts.sum()
    });
    counting.await.context("the thread that counts records ended early")?
}
