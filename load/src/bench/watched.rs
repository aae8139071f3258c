//! Part f: what it costs to be watched. The order stage drains the same topic with nobody looking, and scraped every second
//! while its spans go to a collector, in turns.
//!
//! Counters and histograms in the process cannot be switched off, and a switch would cost what it measures: their share is
//! measured by itself, as the time of the observations that each event makes. What is switched is all the rest: scrapes with
//! their rendering, spans, their export.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use serde::Serialize;
use stack::Stack;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::drain::{WRITTEN, work};
use super::progress::Observer;
use super::sample::{Sample, median};
use super::{BenchArgs, CONSUMER, fill, orders, say};
use crate::pipeline::{Pipeline, STOP_PATIENCE, free_addresses};
use crate::usage::Subject;

const CLIENT: &str = "client";

/// More often than anybody does: people scrape every 15 seconds.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Observations timed, and how many of them an event makes: processing time and age.
const OBSERVATIONS: u32 = 1_000_000;
const PER_EVENT: f64 = 2.0;

/// What part f found: rates in events per second, CPU in seconds per million events.
#[derive(Debug, Serialize)]
pub(super) struct Watched {
    pub(super) events: u32,
    pub(super) alone: Sample,
    pub(super) ways: Vec<Way>,
    /// Of the metrics in the process, as a share of the time that an event takes.
    pub(super) metrics_share: f64,
    pub(super) faults: Vec<String>,
}

/// One way of being watched, beside the turn alone next to it.
#[derive(Debug, Serialize)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) sample: Sample,
    /// Of the rates. One turn differs from the next by more than a tenth whether watched or not.
    pub(super) ratio: f64,
    /// CPU time that the stage's process needs more, as a share of what everything took alone: what throughput pays where
    /// processors are what is full. Nobody else has to do anything for being watched.
    pub(super) cpu_share: f64,
    /// Spans that reached the collector, in bytes on the wire per event.
    pub(super) bytes_per_event: f64,
}

/// Name, sampler and its argument. All orders in the topic are flagged as sampled; `traceidratio` decides anew.
const WAYS: [(&str, &str, &str); 2] = [
    ("scraped, 1 order in 100 traced", "traceidratio", "0.01"),
    ("scraped, every order traced", "parentbased_always_on", ""),
];

struct Bench<'a> {
    pipeline: Pipeline,
    observer: Observer,
    servers: Vec<Subject>,
    events: i64,
    faults: Vec<String>,
    args: &'a BenchArgs,
}

pub(super) async fn measure(args: &BenchArgs, stack: &Stack) -> anyhow::Result<Watched> {
    say(&format!("f: filling a topic with {} orders", args.events));
    let pipeline = super::pipeline(stack, "watched").await?;
    let mut bench = Bench {
        observer: Observer::connect(stack, &super::database_of(&pipeline)?).await?,
        servers: Subject::servers(stack)?,
        events: i64::from(args.events),
        faults: Vec::new(),
        pipeline,
        args,
    };
    fill::fill(&bench.pipeline, &orders::placed(args.events)?).await?;
    let (collector, received) = collector().await?;
    // The first drain finds cold files and plans.
    bench.drain("warming up", 0, None).await?;
    let mut alone = Vec::new();
    let mut watched: [Vec<(Sample, f64, f64, u64)>; WAYS.len()] = Default::default();
    for round in 1..=args.rounds {
        for ((name, sampler, argument), samples) in WAYS.iter().zip(&mut watched) {
            let before = received.load(Ordering::Relaxed);
            // Who goes first changes, or drift of the machine would look like a cost.
            let first =
                if round % 2 == 1 { Some(bench.drain("alone", round, None).await?) } else { None };
            let watch = Watch { collector, sampler, argument };
            let sample = bench.drain(name, round, Some(&watch)).await?;
            let beside = match first {
                Some(first) => first,
                None => bench.drain("alone", round, None).await?,
            };
            let ratio = sample.per_second / beside.per_second;
            let more = client(&sample) - client(&beside);
            let cpu_share = more / beside.cpu_total();
            let bytes = received.load(Ordering::Relaxed) - before;
            samples.push((sample, ratio, cpu_share, bytes));
            alone.push(beside);
        }
    }
    let alone = Sample::median(&alone);
    let ways = WAYS.iter().zip(watched).map(|((name, ..), rounds)| Way {
        name,
        ratio: median(rounds.iter().map(|round| round.1)),
        cpu_share: median(rounds.iter().map(|round| round.2)),
        bytes_per_event: median(rounds.iter().map(|round| round.3 as f64 / f64::from(args.events))),
        sample: Sample::median(&rounds.into_iter().map(|round| round.0).collect::<Vec<_>>()),
    });
    Ok(Watched {
        events: args.events,
        ways: ways.collect(),
        metrics_share: observation_seconds() * PER_EVENT * alone.per_second,
        alone,
        faults: bench.faults,
    })
}

/// CPU seconds of the process that is watched.
fn client(sample: &Sample) -> f64 {
    sample.cpu.get(CLIENT).copied().unwrap_or_default()
}

/// How a drain is watched.
struct Watch<'a> {
    collector: SocketAddr,
    sampler: &'a str,
    argument: &'a str,
}

impl Bench<'_> {
    async fn drain(
        &mut self,
        name: &str,
        round: u32,
        watch: Option<&Watch<'_>>,
    ) -> anyhow::Result<Sample> {
        self.observer.fresh(WRITTEN).await?;
        let mut process =
            self.pipeline.launch_stages("watched", &["order"], |spec| match watch {
                None => spec,
                Some(watch) => spec
                    .with("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", watch.collector))
                    .with("OTEL_TRACES_SAMPLER", watch.sampler)
                    .with("OTEL_TRACES_SAMPLER_ARG", watch.argument),
            })?;
        let _scraping = watch.map(|_| scrape(process.admin()));
        let subjects = [&[Subject::child(CLIENT, CONSUMER).await?], &self.servers[..]].concat();
        let sample = self.observer.rate(work(self.events), &mut process, &subjects).await?;
        process.stop(STOP_PATIENCE).await?;
        say(&format!(
            "f: {name}, round {round} of {}: {:.0}/s, {:.2} CPU s per million",
            self.args.rounds,
            sample.per_second,
            sample.cpu_total()
        ));
        let rows = self.observer.number("select count(*) from orders").await?;
        if rows != self.events {
            self.faults.push(format!("{name}: {rows} orders, not {}", self.events));
        }
        Ok(sample)
    }
}

/// As Prometheus does, until the handle is dropped.
fn scrape(admin: SocketAddr) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let http = reqwest::Client::builder().no_proxy().build().unwrap_or_default();
        let mut turns = tokio::time::interval(SCRAPE_EVERY);
        loop {
            turns.tick().await;
            // Before it listens and after it has gone there is nothing to read.
            if let Ok(answer) = http.get(format!("http://{admin}/metrics")).send().await {
                answer.bytes().await.ok();
            }
        }
    }))
}

/// Takes spans and counts their bytes.
async fn collector() -> anyhow::Result<(SocketAddr, Arc<AtomicU64>)> {
    let [address] = free_addresses()?;
    let listener = TcpListener::bind(address).await.context("listen for spans")?;
    let received = Arc::new(AtomicU64::new(0));
    let count = async |State(received): State<Arc<AtomicU64>>, body: Bytes| {
        received.fetch_add(body.len() as u64, Ordering::Relaxed);
    };
    let routes = Router::new().route("/v1/traces", post(count)).with_state(received.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok((address, received))
}

/// What one observation of the stage's histograms takes.
fn observation_seconds() -> f64 {
    let buckets = (1..=15).map(f64::from);
    let histogram: HistogramWithExemplars<Vec<(String, String)>> =
        HistogramWithExemplars::new(buckets);
    let begun = Instant::now();
    for number in 0..OBSERVATIONS {
        histogram.observe(f64::from(number % 20), None, None);
    }
    begun.elapsed().as_secs_f64() / f64::from(OBSERVATIONS)
}
