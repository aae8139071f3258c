//! `order-stack`: the command line of the library. Data goes to standard output, progress and errors
//! to standard error; the exit status is 0 only when what was asked for is the case.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use stack::{Down, Interrupt, Ports, Progress, Signal, Stack, StackOptions, table};

/// Real servers on this machine, on loopback, without a container engine.
///
/// `up` installs what is missing, starts every server with its data in one directory, and returns
/// when each has answered a real request. `down` ends them and removes that directory.
#[derive(Parser)]
#[command(name = "order-stack", version)]
struct Arguments {
    /// Where everything the stack writes is kept: data, logs, passwords, the state itself.
    #[arg(
        long,
        global = true,
        env = "ORDER_STACK_STATE_DIR",
        default_value = ".stack",
        value_name = "DIR"
    )]
    state_dir: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the stack, or complete one that is half there; says so when there is nothing to do.
    Up(Up),
    /// Stop the stack and remove its directory.
    Down {
        /// Stop only: the next `up` continues on the same data and ports.
        #[arg(long)]
        keep_data: bool,
    },
    /// Show each server's state, process, endpoint, age and memory.
    Status {
        /// For programs: an array of objects.
        #[arg(long)]
        json: bool,
    },
    /// Print what clients need, for `eval "$(order-stack env)"`. Passwords stay in private files.
    Env,
    /// Break a server on purpose. KILL, STOP and CONT reach all its processes, TERM the main one.
    Kill {
        /// As in `status`.
        name: String,
        #[arg(long, value_enum, ignore_case = true, default_value = "kill")]
        signal: SignalName,
    },
    /// Stop a server if it is alive, start it on the same ports and data, wait until it answers.
    Restart {
        /// As in `status`.
        name: String,
    },
    /// Install what `up` would need, without starting anything.
    Install {
        #[command(flatten)]
        choice: Choice,
    },
}

#[derive(clap::Args)]
struct Up {
    /// `default`: the usual ports (Kafka 9092, Postgres 5432, Temporal 7233 with its UI on 8233). `free`: any that are free, as tests
    /// want them. A stack keeps its ports until `down`.
    #[arg(long, env = "ORDER_STACK_PORTS", value_enum, default_value = "default")]
    ports: PortChoice,

    /// One broker, or three: then topics have three replicas, two of them in sync at every write.
    #[arg(long, env = "ORDER_STACK_BROKERS", default_value = "1", value_parser = ["1", "3"])]
    brokers: String,

    #[command(flatten)]
    choice: Choice,

    /// Postgres' shared_buffers. The default suits load runs; 128MB is enough to look around.
    #[arg(long, env = "ORDER_STACK_SHARED_BUFFERS", default_value = "1GB", value_name = "SIZE")]
    postgres_shared_buffers: String,
}

#[derive(clap::Args)]
struct Choice {
    /// Only these kinds of server, comma separated; when absent, all that the programs need.
    #[arg(long, value_delimiter = ',', value_parser = stack::choices())]
    only: Vec<String>,

    /// These kinds too: `monitoring` for Prometheus (9090), Alertmanager (9093), Pushgateway (9091) and the Postgres
    /// exporter (9187).
    #[arg(long, env = "ORDER_STACK_WITH", value_delimiter = ',', value_parser = stack::choices())]
    with: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PortChoice {
    Default,
    Free,
}

#[derive(Clone, Copy, ValueEnum)]
enum SignalName {
    Kill,
    Stop,
    Cont,
    Term,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("order-stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { state_dir, command }: Arguments) -> Result<()> {
    let progress = Progress::on_stderr();
    let attach = || Stack::attach(&state_dir).map(|stack| stack.with_progress(progress.clone()));
    match command {
        Command::Up(up) => {
            let options = StackOptions {
                ports: match up.ports {
                    PortChoice::Default => Ports::Default,
                    PortChoice::Free => Ports::Free,
                },
                brokers: up.brokers.parse().context("read the number of brokers")?,
                only: up.choice.only,
                with: up.choice.with,
                postgres_shared_buffers: up.postgres_shared_buffers,
                progress: progress.clone(),
                interrupt: interrupt_on_signals()?,
                ..StackOptions::new(&state_dir)
            };
            let stack = Stack::up(&options)?.keep();
            if stack.found_running() {
                eprintln!("already up");
            }
            print(&table(&stack.status()?))
        }
        Command::Down { keep_data } => {
            let data = if keep_data { Down::KeepData } else { Down::RemoveEverything };
            attach()?.down(data)
        }
        Command::Status { json } => {
            let status = attach()?.status()?;
            match json {
                true => print(&format!("{}\n", serde_json::to_string_pretty(&status)?)),
                false => print(&table(&status)),
            }
        }
        Command::Env => {
            let env = attach()?.env()?;
            let lines = env.iter().map(|(name, value)| format!("export {name}={}\n", quote(value)));
            print(&lines.collect::<String>())
        }
        Command::Kill { name, signal } => {
            let signal = match signal {
                SignalName::Kill => Signal::Kill,
                SignalName::Stop => Signal::Stop,
                SignalName::Cont => Signal::Cont,
                SignalName::Term => Signal::Term,
            };
            attach()?.signal(&name, signal)
        }
        Command::Restart { name } => attach()?.restart(&name),
        Command::Install { choice } => stack::install(&StackOptions {
            only: choice.only,
            with: choice.with,
            progress,
            interrupt: interrupt_on_signals()?,
            ..StackOptions::new(&state_dir)
        }),
    }
}

/// A signal trips the interrupt instead of ending this process, so that `up` can undo its work.
fn interrupt_on_signals() -> Result<Interrupt> {
    use tokio::signal::unix::{SignalKind, signal};

    let interrupt = Interrupt::default();
    let tripped = interrupt.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("prepare for signals")?;
    let mut kinds = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("listen for signals");
        (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = kinds.0.recv() => {}
                _ = kinds.1.recv() => {}
                _ = kinds.2.recv() => {}
            }
        });
        tripped.trip();
    });
    Ok(interrupt)
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).context("write to standard output")
}

/// A path may hold anything.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
