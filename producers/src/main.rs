//! `order-producer`: puts orders into the pipeline.

use std::io::{self, BufWriter, Write, stderr, stdout};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use producers::api;
use producers::generate::{Generator, Mix};
use producers::kafka::KafkaArgs;
use producers::publish::{self, Ended, PublishArgs};
use producers::serve::{self, Mistakes, ServeArgs};
use telemetry::logs::{self, LogArgs};
use telemetry::traces::{self, traced};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Name and version of what is traced.
const SERVICE: (&str, &str) = ("order-producer", env!("CARGO_PKG_VERSION"));

/// Puts orders into the pipeline: over HTTP, or from a file.
#[derive(Parser)]
#[command(
    name = "order-producer",
    version,
    after_help = "Examples:
  order-producer serve                                      the API on 127.0.0.1:8080
  order-producer generate --count 1000 > orders.ndjson      make orders
  order-producer publish orders.ndjson                      and publish them
  order-producer openapi > openapi.json                     the API, described"
)]
struct Cli {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    logs: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API
    ///
    /// POST /orders, POST /orders/batch, GET /orders, GET /orders/{id}, GET /orders/{id}/events,
    /// POST /orders/{id}/cancel, GET /openapi.json; metrics and health on --admin-listen. An order is answered with
    /// 202 only after Kafka acknowledged it. Ends on SIGTERM or SIGINT, after what is in hand.
    #[command(after_long_help = traces::HELP)]
    Serve(ServeArgs),
    /// Publish the orders of a file, one JSON object per line
    Publish(PublishArgs),
    /// Make realistic orders, one JSON object per line
    ///
    /// The same seed makes the same orders. Some ask for what is not in stock (SKU-SCARCE-..), some cost more than
    /// the simulated card limit, so that every ending of an order occurs.
    Generate(GenerateArgs),
    /// Print the OpenAPI document of the API
    Openapi,
}

#[derive(clap::Args)]
struct GenerateArgs {
    /// How many orders.
    #[arg(long)]
    count: u64,
    #[command(flatten)]
    mix: Mix,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Nowhere is left to complain about stderr.
            drop(writeln!(stderr(), "order-producer: {error:#}"));
            // The same status as for wrong usage: nothing was started.
            if error.is::<Mistakes>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => {
            logs::init(&cli.logs)?;
            let serve = async |tracer| serve::run(args, cli.kafka, tracer).await;
            runtime()?.block_on(traced(SERVICE, serve))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Publish(args) => {
            logs::init(&cli.logs)?;
            let publish = async |tracer| publish::run(args, cli.kafka, tracer).await;
            let ended = runtime()?.block_on(traced(SERVICE, publish))?;
            Ok(if ended == Ended::Complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Generate(args) => quietly(generate(args)),
        Command::Openapi => quietly(stdout().write_all(api::document().as_bytes())),
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn generate(args: GenerateArgs) -> io::Result<()> {
    let mut out = BufWriter::new(stdout().lock());
    let count = usize::try_from(args.count).unwrap_or(usize::MAX);
    for order in Generator::new(args.mix).take(count) {
        serde_json::to_writer(&mut out, &order)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A reader that closed its end has what it wanted: `… | head` is no failure.
fn quietly(written: io::Result<()>) -> anyhow::Result<ExitCode> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
