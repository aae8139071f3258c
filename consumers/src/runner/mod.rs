//! Carries a stage: reads, batches, retries, commits, tells, drains. The delivery protocol lives here, once for all stages.
//!
//! Promise: every record of the stage's topics is applied once, or set aside where a person finds it, whatever is
//! killed; and every effect of it is told at least once under one id. ARCHITECTURE.md numbers the invariants.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use producers::kafka::KafkaArgs;
use producers::publisher::Publisher;
use sqlx::postgres::PgConnectOptions;
use telemetry::{Readiness, Shutdown, Tracer};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod batch;
mod backoff;
mod effects;
mod ends;
mod intake;
mod lane;
pub mod metrics;
mod progress;
mod queue;
mod source;
mod tell;
mod reader;
mod rewound;
mod callbacks;
mod dead_letter_copy;
mod traces;
mod transaction;
mod window;

use crate::broker::topic_ids::TopicIds;
use crate::config::{RunnerConfig, StageConfig};
use crate::stage::Stage;
use lane::{Lane, Shared};
use metrics::Families;
use progress::Owned;
use queue::Queue;
use source::Source;
use tell::Teller;
use traces::StageTraces;
use window::RejectWindow;

/// What every stage of a process shares.
#[derive(Clone)]
pub struct StageContext {
    /// How to reach Kafka.
    pub kafka: KafkaArgs,
    /// How to reach Postgres.
    pub database: PgConnectOptions,
    /// Writes effects.
    pub publisher: Publisher,
    /// Limits.
    pub config: RunnerConfig,
    /// Families of metrics.
    pub metrics: Families,
    /// Records batches.
    pub tracer: Tracer,
    /// Where each stage says whether it is well.
    pub readiness: Readiness,
    /// Ends every stage.
    pub shutdown: Shutdown,
    /// Names this process in `stage_progress`.
    pub owner: String,
}

/// A stage at work.
pub struct Running {
    /// Its name.
    pub name: &'static str,
    done: tokio::task::JoinHandle<Result<(), String>>,
}

impl Running {
    /// Waits until it has stopped; the error says why, when nobody asked it to.
    pub async fn stopped(self) -> Result<(), String> {
        self.done.await.unwrap_or_else(|error| Err(format!("the stage panicked: {error}")))
    }
}

/// What reader and lanes tell each other.
pub(crate) struct Signals {
    stage: &'static str,
    rejoin: AtomicBool,
    stopped: CancellationToken,
    failure: Mutex<Option<String>>,
    readiness: Readiness,
}

impl Signals {
    /// Our claim is void: give everything up and claim anew.
    pub(crate) fn rejoin(&self) {
        self.rejoin.store(true, Ordering::Release);
    }

    pub(crate) fn take_rejoin(&self) -> bool {
        self.rejoin.swap(false, Ordering::AcqRel)
    }

    /// The stage must not go on; the first reason counts.
    pub(crate) fn stop_stage(&self, why: String) {
        tracing::error!(stage = self.stage, why, "the stage stops");
        self.readiness.set(self.stage, Err("stopped; see the log".to_owned()));
        self.failure.lock().expect("no code panics while it holds this lock").get_or_insert(why);
        self.stopped.cancel();
    }

    pub(crate) fn shutting_down(&self) -> bool {
        self.stopped.is_cancelled()
    }

    pub(crate) fn assigned(&self, any: bool) {
        let state = if any {
            Ok(())
        } else {
            Err("no partitions: there are more members than partitions".to_owned())
        };
        self.readiness.set(self.stage, state);
    }
}

/// Starts the stage `S`.
pub(crate) fn start<S: Stage>(
    config: &StageConfig,
    context: StageContext,
) -> anyhow::Result<Running> {
    let stage =
        S::from_config(config).with_context(|| format!("building the stage {}", S::NAME))?;
    let owned = Owned::default();
    let metrics = context.metrics.stage(S::NAME, &context.kafka.topic_prefix, &owned);
    let queue =
        Arc::new(Queue::new(context.config.lanes.into(), context.config.buffer_bytes as usize));
    let signals = Arc::new(Signals {
        stage: S::NAME,
        rejoin: AtomicBool::new(false),
        stopped: CancellationToken::new(),
        failure: Mutex::default(),
        readiness: context.readiness.clone(),
    });
    context.readiness.set(S::NAME, Err("waiting for partitions".to_owned()));
    let database = lane_options::<S>(context.database.clone());
    let mut topics: Vec<schemas::Topic> = S::INPUTS.iter().map(|input| input.topic()).collect();
    topics.sort_unstable();
    topics.dedup();
    let ids = TopicIds::new(&context.kafka, &format!("order-consumer-{}-ids", S::NAME))?;
    let source = Source {
        stage: S::NAME,
        topics,
        ids,
        claimed: Mutex::default(),
        kafka: context.kafka.clone(),
        config: context.config.clone(),
        database: database.clone(),
        owner: context.owner.clone(),
        queue: queue.clone(),
        owned: owned.clone(),
        metrics: metrics.clone(),
        signals: signals.clone(),
        runtime: Handle::current(),
    };
    let teller = Teller {
        stage: S::NAME,
        publisher: context.publisher,
        outlet: stage.outlet(),
        metrics: metrics.clone(),
    };
    let prefix = context.kafka.topic_prefix;
    let traces = StageTraces {
        tracer: context.tracer,
        group: prefix.group(S::NAME),
        output: S::OUTPUT.map(|topic| prefix.topic(topic)),
        database: database.get_database().unwrap_or_default().to_owned(),
    };
    let shared = Arc::new(Shared {
        stage,
        window: RejectWindow::new(context.config.reject_window as usize),
        config: context.config,
        prefix,
        database,
        teller,
        queue: queue.clone(),
        owned,
        metrics,
        traces,
        signals: signals.clone(),
    });
    let reader = std::thread::Builder::new()
        .name(format!("read-{}", S::NAME))
        .spawn(move || source.run())
        .context("starting the reader thread")?;
    let lanes = TaskTracker::new();
    for number in 0..queue.lanes() {
        lanes.spawn(Lane::new(shared.clone(), number).run());
    }
    lanes.close();
    let shutdown = context.shutdown;
    let done = tokio::spawn(async move {
        tokio::select! {
            () = shutdown.wait() => {}
            () = signals.stopped.cancelled() => {}
        }
        signals.stopped.cancel();
        // The reader gives its partitions back, which lets lanes finish what they have in hand.
        let joined = tokio::task::spawn_blocking(move || reader.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            signals.stop_stage("the reader thread panicked".to_owned());
        }
        queue.close();
        lanes.wait().await;
        let failure =
            signals.failure.lock().expect("no code panics while it holds this lock").take();
        failure.map_or(Ok(()), Err)
    });
    Ok(Running { name: S::NAME, done })
}

/// Settings of a lane's connection.
fn lane_options<S: Stage>(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name(&format!("orders.{}", S::NAME)).options([
        // A frozen process must not keep its successor waiting.
        ("idle_in_transaction_session_timeout", "10s"),
        // A zombie's transaction ends by the line above; waiting much longer for a lock is no use.
        ("lock_timeout", "15s"),
        ("statement_timeout", "30s"),
        // Every statement here is by key. On a table that was analysed while it was nearly empty the planner would
        // rather read all of it, and a cached plan keeps doing so while the table grows.
        ("enable_seqscan", "off"),
        // A decision that was told must not be forgotten; the one stage that tells nothing repeats what it loses,
        // but people have read its rows.
        ("synchronous_commit", "on"),
    ])
}
