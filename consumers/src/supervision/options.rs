//! Settings of supervision, the same for the stage that signals, the worker that supervises and the auditor.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use workflows::{DeadlineArgs, Deadlines, Settings, Supervisor, SupervisorOptions};

/// How orders are supervised. Where Temporal is: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_* or
/// a temporal.toml, as for every Temporal client.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Supervision (Temporal)")]
pub struct SupervisionArgs {
    /// Which orders get a workflow. Give the stage, the worker and the auditor the same answer.
    #[arg(long, env = "SUPERVISE", value_enum, default_value = "all")]
    pub supervise: Supervise,

    /// Task queue of the workflows; pipelines that share a Temporal namespace need one each.
    #[arg(long, env = "TEMPORAL_TASK_QUEUE", default_value = "orders")]
    pub task_queue: String,
}

impl SupervisionArgs {
    /// A client that only looks. Fails when the settings of Temporal cannot be read.
    pub(crate) fn reader(&self) -> anyhow::Result<Supervisor> {
        self.supervisor(Deadlines::default(), None)
    }

    fn supervisor(
        &self,
        deadlines: Deadlines,
        metrics_address: Option<SocketAddr>,
    ) -> anyhow::Result<Supervisor> {
        let options = SupervisorOptions {
            task_queue: self.task_queue.clone(),
            // Only some events are told: the workflow looks for the others itself.
            partial: self.supervise == Supervise::Exceptions,
            metrics_address,
            ..SupervisorOptions::new(deadlines)
        };
        Supervisor::new(Settings::load()?, options)
    }
}

/// Which orders get a workflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Supervise {
    /// Every order, from its placing on.
    #[default]
    All,
    /// Orders that are cancelled, declined, cannot be shipped, or are not final in time. The rest costs Temporal nothing.
    Exceptions,
}

/// How workflows are started and told.
#[derive(Args, Clone, Debug)]
pub struct SignalArgs {
    #[command(flatten)]
    pub supervision: SupervisionArgs,

    /// Calls to Temporal at once: enough to keep a server busy, few enough that its queue stays short.
    #[arg(long, env = "TEMPORAL_CALLS", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub temporal_calls: u16,

    /// Where requests that signal and start workflows are counted, under the names of Temporal's SDK
    /// (temporal_request_total and others). Without it they are not.
    #[arg(long, env = "TEMPORAL_CLIENT_METRICS_ADDRESS")]
    pub temporal_client_metrics_address: Option<SocketAddr>,

    #[command(flatten)]
    pub deadlines: DeadlineArgs,
}

impl SignalArgs {
    /// A client that connects when it is first used. Fails when the settings of Temporal cannot be read.
    pub(crate) fn supervisor(&self) -> anyhow::Result<Supervisor> {
        self.supervision.supervisor(self.deadlines.into(), self.temporal_client_metrics_address)
    }
}

/// When an order is overdue.
#[derive(Args, Clone, Copy, Debug)]
pub struct SweepArgs {
    /// With --supervise exceptions: an order that is not final this many seconds after it was placed gets a workflow. Ten
    /// minutes: far beyond a healthy second, and well before a customer asks.
    #[arg(long, env = "SUPERVISION_GRACE_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub supervision_grace_seconds: u32,
}

impl SweepArgs {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.supervision_grace_seconds.into())
    }
}
