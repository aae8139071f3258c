//! `order-load`: the pipeline, driven from outside.

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use load::alerts::{self, AlertsArgs};
use load::bench::{self, BenchArgs};
use load::boards::{self, BoardsArgs};
use load::demo::{self, DemoArgs};
use load::run::{self, RunArgs};
use load::targets::{self, TargetsArgs};

/// Drives the pipeline from outside: brings it up, places orders, and proves what became of them.
#[derive(Parser)]
#[command(name = "order-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up everything, place orders over HTTP, audit them, and stay up to look at
    ///
    /// The last line is the auditor's verdict. Ctrl-C stops everything that this command started and removes it.
    Demo(DemoArgs),
    /// Measure throughput, CPU and memory beside what the servers themselves can do
    ///
    /// Brings up servers of its own on free ports and removes them afterwards. Takes a few minutes.
    Bench(BenchArgs),
    /// Put a pipeline under load by a profile, and judge what became of the orders
    ///
    /// The last line is the verdict. Ctrl-C ends the run with a report on what happened so far.
    Run(RunArgs),
    /// Prove every alert by a real fault, in faster time, on servers of its own
    ///
    /// The last line is the verdict. Ctrl-C takes everything down.
    Alerts(AlertsArgs),
    /// Prove Grafana's boards: a real run with faults, every query asked, and what they show compared with what happened
    ///
    /// Brings up servers of its own and removes them afterwards. The last line is the verdict. Ctrl-C takes everything down.
    Boards(BoardsArgs),
    /// Print targets for vegeta, each an order of its own
    Targets(TargetsArgs),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| match command {
        Command::Demo(args) => runtime.block_on(demo::run(args)),
        Command::Bench(args) => runtime.block_on(bench::run(args)),
        Command::Run(args) => runtime.block_on(run::run(args)),
        Command::Alerts(args) => runtime.block_on(alerts::run(args)),
        Command::Boards(args) => runtime.block_on(boards::run(args)),
        Command::Targets(args) => targets::run(&args),
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            // Nowhere is left to complain about stderr.
            drop(writeln!(stderr(), "order-load: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
