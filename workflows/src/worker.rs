//! The worker: runs workflows and activities until it is told to finish. What it had in hand at a crash, another
//! worker takes over from the history.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use telemetry::{Shutdown, Tracer};
use temporalio_sdk::runtime::RuntimeOptions;
use temporalio_sdk::{Runtime, Worker};
use tokio::sync::oneshot;

use crate::activities::{ActivityMetrics, OrderActivities, World};
use crate::connection::Settings;
use crate::exporter::Exporter;
use crate::order_workflow::{OrderWorkflow, TASK_QUEUE};
use crate::trace;

/// How a worker runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Worker")]
pub struct WorkerArgs {
    /// Where the SDK's own metrics are served. They cannot join the process's, so they have an address of their own.
    #[arg(long, env = "TEMPORAL_METRICS_ADDRESS", default_value = "127.0.0.1:9104")]
    pub temporal_metrics_address: SocketAddr,

    /// Task queue to work on, which the signalling side names too: set by whoever knows both.
    #[arg(skip = TASK_QUEUE.to_owned())]
    pub task_queue: String,

    /// Records activities: set by whoever has one.
    #[arg(skip)]
    pub tracer: Tracer,

    /// Workflows kept in memory. One that is not is replayed from its history when it is heard of again.
    #[arg(long, env = "TEMPORAL_CACHED_WORKFLOWS", default_value_t = 10_000)]
    pub cached_workflows: usize,

    /// What activities may take to finish after a stop, in seconds; the rest is repeated by another worker.
    #[arg(long, env = "WORKER_GRACE_SECONDS", default_value_t = 10)]
    pub worker_grace_seconds: u64,
}

impl WorkerArgs {
    /// For tests: a task queue of its own, and any free port.
    pub fn for_tests(task_queue: impl Into<String>) -> Self {
        Self {
            temporal_metrics_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            task_queue: task_queue.into(),
            tracer: Tracer::off(),
            cached_workflows: 100,
            worker_grace_seconds: 5,
        }
    }
}

/// Works until `shutdown` begins and what was in hand is done. An error when Temporal cannot be reached at the start,
/// or will not have this worker; an outage later is waited out.
pub async fn run(
    settings: Settings,
    args: WorkerArgs,
    world: Arc<dyn World>,
    metrics: ActivityMetrics,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let exporter = Exporter::start(args.temporal_metrics_address)
        .with_context(|| format!("serving metrics on {}", args.temporal_metrics_address))?;
    let settings = settings.counted_by(exporter.client_meter()?);
    let client = settings.connect().await?;
    let options = temporalio_sdk::WorkerOptions::new(args.task_queue.clone())
        .register_workflow::<OrderWorkflow>()
        .context("registering the workflow")?
        .register_activities(OrderActivities { world, metrics, tracer: args.tracer.clone() })
        .workflow_interceptor(trace::passing_it_on())
        .max_cached_workflows(args.cached_workflows)
        .graceful_shutdown_period(Duration::from_secs(args.worker_grace_seconds))
        .build();
    let telemetry = exporter.telemetry();
    let (done, ended) = oneshot::channel();
    // Closed when this future is dropped: then the thread must not go on by itself.
    let (_wanted, unwanted) = oneshot::channel::<()>();
    let here = tokio::runtime::Handle::current();
    // The worker's future stays on its thread: workflows are not `Send`. Activities run on this runtime.
    let thread = std::thread::Builder::new().name("temporal-worker".to_owned());
    let work = move || {
        let result = here.block_on(async move {
            let runtime = RuntimeOptions::builder().telemetry_options(telemetry).build();
            let runtime = runtime.map_err(|why| anyhow!(why)).context("configuring the SDK")?;
            let runtime = Runtime::from_current_tokio(runtime).context("starting the SDK")?;
            let mut worker = Worker::new(&runtime, client, options).context("making a worker")?;
            let stop = worker.shutdown_handle();
            let watch = tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.wait() => {}
                    _ = unwanted => {}
                }
                stop();
            });
            let result = worker.run().await.context("running the worker");
            watch.abort();
            result
        });
        // Nobody waits any more when `run` was dropped.
        drop(done.send(result));
    };
    let _thread = thread.spawn(work).context("starting the worker's thread")?;
    tracing::info!(
        task_queue = args.task_queue,
        address = settings.address(),
        metrics = %exporter.address(),
        "worker started on {} of {}", args.task_queue, settings.address()
    );
    ended.await.context("the worker's thread panicked")?
}
