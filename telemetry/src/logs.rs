//! Structured logs on stderr: readable text on a terminal, JSON lines otherwise.

use std::io::{IsTerminal, stderr};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log, as `level` or `target=level,…`.
    #[arg(long, env = "LOG", default_value = "info", global = true, help_heading = "Logs")]
    pub log: String,

    /// Form of the log on stderr; by default text on a terminal, JSON otherwise.
    #[arg(long, env = "LOG_FORMAT", global = true, help_heading = "Logs")]
    pub log_format: Option<Format>,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For reading.
    Text,
    /// For querying, one object per line.
    Json,
}

/// Starts logging; once per process.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)?;
    let by_default = if stderr().is_terminal() { Format::Text } else { Format::Json };
    let registry = tracing_subscriber::registry().with(filter);
    match args.log_format.unwrap_or(by_default) {
        Format::Text => registry.with(layer().with_writer(stderr).with_target(false)).try_init()?,
        Format::Json => {
            registry.with(layer().with_writer(stderr).json().flatten_event(true)).try_init()?;
        }
    }
    Ok(())
}
