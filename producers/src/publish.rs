//! `order-producer publish`: the orders of a file, one per line, straight to the topic.
//!
//! The same line of the same run is the same order, whether it is sent once or ten times, so a run may be killed and
//! repeated at any point: `--resume` only saves time. Memory does not grow with the file.

mod checkpoint;
mod delivery;
mod pace;
mod report;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use telemetry::{Shutdown, Tracer};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use self::checkpoint::Checkpoint;
use self::delivery::{Delivery, Undelivered};
use self::pace::{Pace, Rate};
use self::report::{Report, Summary};
use self::source::{Chunk, Source};
use crate::events::OrdersTopic;
use crate::kafka::KafkaArgs;
use crate::publisher::{Publisher, PublisherSettings};

/// Chunks on their way at a time: keeps the publisher's batches full while reports come back.
const WINDOW: usize = 16;
/// From a signal to the end of the process.
const GRACE: Duration = Duration::from_secs(15);
/// How long the last records may take after a signal.
const FLUSH: Duration = Duration::from_secs(10);

/// Publishes the orders of a file.
///
/// Each line is an order as in POST /orders, with an optional "idempotency_key". Lines that are no orders are
/// reported, skipped and counted.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-producer generate --count 100000 > orders.ndjson
  order-producer publish orders.ndjson --rate 2000/s
  order-producer publish orders.ndjson --resume
  order-producer generate --count 1000 | order-producer publish - --run-id monday

Exit status: 0 when every line was published, 1 when lines were rejected or the run stopped early, 2 for wrong usage.")]
pub struct PublishArgs {
    /// The file, or - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Orders per second at most: 500/s, or 500.
    #[arg(long, value_name = "N/s")]
    pub rate: Option<Rate>,

    /// Goes on behind the last line that an earlier run saw acknowledged (FILE.progress).
    #[arg(long)]
    pub resume: bool,

    /// Names the run. Lines without a key get their order id from it, their number and their content, so the same
    /// file under another name is another set of orders. By default taken from the start of the file; for standard
    /// input a new one each time.
    #[arg(long, value_name = "NAME")]
    pub run_id: Option<String>,

    /// Writes what is wrong with lines there, as JSON lines, instead of to stderr.
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,

    /// Writes the summary as JSON.
    #[arg(long)]
    pub json: bool,

    /// Stops when nothing was acknowledged for this long.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::serve::duration)]
    pub give_up_after: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every line is published.
    Complete,
    /// Lines were rejected, or the run stopped early.
    Incomplete,
}

/// Publishes until the file ends or a signal comes.
pub async fn run(args: PublishArgs, kafka: KafkaArgs, tracer: Tracer) -> anyhow::Result<Ended> {
    if args.resume && args.file.as_os_str() == "-" {
        bail!("--resume needs a file: standard input cannot be read from the middle");
    }
    let shutdown = Shutdown::on_signals(GRACE)?;
    let publisher =
        Publisher::connect(&kafka, &PublisherSettings::default(), "order-producer-publish")?;
    let topic = OrdersTopic::new(&kafka.topic_prefix);
    let (reach, name) = (publisher.clone(), topic.name().to_owned());
    // Before anything is read: a wrong address or a missing topic should say so at once.
    spawn_blocking(move || reach.ping(&name, Duration::from_secs(10)))
        .await?
        .context("reaching Kafka; is it up, and is --kafka-brokers right?")?;

    let source = Source::open(&args)?;
    let checkpoint = source.checkpoint.clone();
    let mut report = Report::new(&args, &source)?;
    let lines = args.rate.map_or(source::LARGEST_CHUNK, Rate::chunk);
    let chunks = source.start(lines, tracer.clone());
    let delivery = Delivery::new(publisher.clone(), topic, args.give_up_after, tracer);
    let stopped = pump(chunks, delivery, args.rate, checkpoint, &mut report, shutdown).await?;

    // Whatever is still on its way after an early stop would arrive or not; seeing it out keeps the count honest.
    spawn_blocking(move || publisher.flush(FLUSH)).await?;
    let summary = report.finish(stopped.as_deref());
    Ok(finish(&args, &summary, stopped))
}

fn finish(args: &PublishArgs, summary: &Summary, stopped: Option<String>) -> Ended {
    summary.print(args.json);
    match stopped {
        None if summary.rejected == 0 => Ended::Complete,
        None => Ended::Incomplete,
        Some(why) => {
            report::say(&format!("stopped: {why}"));
            report::say(&match args.file.as_os_str() {
                file if file == "-" => format!(
                    "repeat the same input with --run-id {}: what was published stays what it is",
                    summary.run_id
                ),
                _ => format!("go on with: order-producer publish {} --resume", args.file.display()),
            });
            Ended::Incomplete
        }
    }
}

/// Moves chunks from the file to the broker. Answers with the reason when it stops before the end.
async fn pump(
    mut chunks: mpsc::Receiver<anyhow::Result<Chunk>>,
    delivery: Delivery,
    rate: Option<Rate>,
    mut checkpoint: Option<Checkpoint>,
    report: &mut Report,
    shutdown: Shutdown,
) -> anyhow::Result<Option<String>> {
    let mut pace = Pace::new(rate);
    let mut waiting: Option<Chunk> = None;
    let mut under_way = FuturesOrdered::new();
    let mut stopped = None;
    let mut at_end = false;
    loop {
        let nothing_to_send = stopped.is_some() || (at_end && waiting.is_none());
        if nothing_to_send && under_way.is_empty() {
            break;
        }
        let room = under_way.len() < WINDOW && stopped.is_none();
        tokio::select! {
            biased;
            () = shutdown.wait(), if stopped.is_none() => stopped = Some("interrupted".to_owned()),
            // Ordered: a checkpoint says that everything before it is acknowledged.
            Some(settled) = under_way.next() => match settled {
                Ok(chunk) => {
                    report.settled(&chunk)?;
                    if let Some(checkpoint) = &mut checkpoint {
                        checkpoint.reached(chunk.end)?;
                    }
                }
                Err(Undelivered(why)) => {
                    stopped = Some(why);
                    break;
                }
            },
            () = sleep_until(pace.due()), if room && waiting.is_some() => {
                if let Some(chunk) = waiting.take() {
                    pace.sent(chunk.lines());
                    under_way.push_back(delivery.deliver(chunk));
                }
            }
            chunk = chunks.recv(), if room && waiting.is_none() && !at_end => match chunk {
                Some(chunk) => waiting = Some(chunk?),
                None => at_end = true,
            },
        }
    }
    if let Some(checkpoint) = &mut checkpoint {
        checkpoint.save()?;
    }
    Ok(stopped)
}
