//! `order-consumer`: takes orders through the stages, and the tools around them.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use consumers::supervision::worker;
use consumers::{
    dead_letters, lag_exporter, migrate, progress_tool, reconcile, run, status, stock, topics,
};
use producers::kafka::KafkaArgs;
use producers::postgres::connect_options;
use telemetry::logs::{self, LogArgs};
use telemetry::traces::{self, traced};

// librdkafka's C and our Rust share one allocator that gives memory back; glibc's fragments under both.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Takes orders through the stages of the pipeline: reads Kafka, writes Postgres, tells what happened.
///
/// Postgres is named by DATABASE_URL_FILE (a file that holds the URL) or DATABASE_URL, never on the command line.
#[derive(Parser)]
#[command(
    name = "order-consumer",
    version,
    after_help = "Examples:
  order-consumer migrate && order-consumer topics     prepare Postgres and Kafka
  order-consumer run --all                            every stage in one process
  order-consumer run --stage payment                  one stage; start more for more throughput
  order-consumer reconcile --wait 60s                 check that nothing was lost or doubled"
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
    /// Run stages until told to stop.
    #[command(after_long_help = traces::HELP)]
    Run(Box<run::RunArgs>),
    /// Supervise orders: run their workflows, which Temporal keeps.
    #[command(after_long_help = traces::HELP)]
    Worker(Box<worker::SuperviseArgs>),
    /// Bring the database to this build's schema.
    Migrate,
    /// Create the topics that are missing.
    Topics(topics::TopicsArgs),
    /// Put SKUs on the shelf.
    Stock(stock::StockArgs),
    Status(status::StatusArgs),
    /// Check independently that no order was lost or processed twice.
    Reconcile(reconcile::ReconcileArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Progress(progress_tool::ProgressArgs),
    LagExporter(Box<lag_exporter::LagExporterArgs>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = logs::init(&cli.logs) {
        return report(&error.context("starting the log; check --log"), 2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into(), 1),
    };
    match runtime.block_on(execute(cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => report(&error, 1),
    }
}

/// `Ok(false)`: done, and the answer is no.
async fn execute(cli: Cli) -> anyhow::Result<bool> {
    let database = || connect_options("order-consumer");
    match cli.command {
        Command::Run(args) if args.list => print(&run::list()).map(|()| true),
        Command::Run(args) => {
            let (kafka, database) = (cli.kafka, database()?);
            let run = async |tracer| run::run(&args, kafka, database, tracer).await;
            traced(("order-consumer", VERSION), run).await
        }
        Command::Worker(args) => {
            let (kafka, database) = (cli.kafka, database()?);
            let supervise = async |tracer| worker::run(&args, kafka, database, tracer).await;
            traced(("order-worker", VERSION), supervise).await.map(|()| true)
        }
        Command::Migrate => {
            let count = migrate::run(&database()?).await?;
            print(&format!("the schema has its {count} migrations\n")).map(|()| true)
        }
        Command::Topics(args) => {
            let created = topics::run(&args, &cli.kafka).await?;
            print(&format!("{} topics created\n", created.len())).map(|()| true)
        }
        Command::Stock(args) => {
            let skus = stock::run(&args, &database()?).await?;
            print(&format!("{skus} SKUs on the shelf\n")).map(|()| true)
        }
        Command::Status(args) => status::run(&args, &cli.kafka).await,
        Command::Reconcile(args) => reconcile::run(&args, &cli.kafka, database()?).await,
        Command::DeadLetters(args) => dead_letters::run(args, &cli.kafka, database()?).await,
        Command::LagExporter(args) => lag_exporter::run(*args, &cli.kafka).await,
        Command::Progress(args) => progress_tool::run(args, &cli.kafka, database()?).await,
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn report(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nothing is left to do when even stderr is gone.
    writeln!(std::io::stderr(), "order-consumer: {error:#}").ok();
    ExitCode::from(code)
}
