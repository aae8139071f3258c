//! A workbench per test: a supervisor, workers, and a world made of files, which outlives a killed worker.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use schemas::OrderId;
use stack::Stack;
use telemetry::{Shutdown, TraceContext};
use temporalio_client::{Client, WorkflowFetchHistoryOptions};
use uuid::Uuid;
use workflows::order_workflow::workflow_id;
use workflows::{
    ActivityMetrics, Deadlines, Fact, FactKind, OrderWorkflow, Report, SagaEvent, Settings,
    Standing, Status, Supervisor, SupervisorOptions, Told, WorkerArgs, World, worker,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// No deadline passes in a test that does not ask for it.
pub(crate) const PATIENT: Deadlines = Deadlines {
    reservation_ms: 600_000,
    payment_ms: 600_000,
    shipping_ms: 600_000,
    compensation_ms: 600_000,
};

pub(crate) struct Bench {
    pub(crate) order: OrderId,
    pub(crate) supervisor: Supervisor,
    pub(crate) settings: Settings,
    pub(crate) queue: String,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(deadlines: Deadlines) -> Self {
        Self::with(deadlines, |_| {})
    }

    pub(crate) fn with(deadlines: Deadlines, change: impl Fn(&mut SupervisorOptions)) -> Self {
        let queue = format!("test-{}", Uuid::new_v4());
        let mut options = SupervisorOptions::new(deadlines);
        options.task_queue.clone_from(&queue);
        change(&mut options);
        let settings = settings(&temporal_address());
        Self {
            order: OrderId::fresh(),
            supervisor: Supervisor::new(settings.clone(), options).unwrap(),
            settings,
            queue,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs until the returned switch begins.
    pub(crate) fn worker(&self) -> (Shutdown, tokio::task::JoinHandle<anyhow::Result<()>>) {
        let shutdown = Shutdown::new();
        let metrics = ActivityMetrics::register(&mut Registry::default());
        let world = Arc::new(Files(self.directory().to_owned()));
        let args = WorkerArgs::for_tests(&self.queue);
        let run = worker::run(self.settings.clone(), args, world, metrics, shutdown.clone());
        (shutdown, tokio::spawn(run))
    }

    pub(crate) async fn tell(&self, facts: &[Fact]) -> Told {
        self.supervisor.tell(self.order, facts).await.unwrap()
    }

    /// What Postgres would know.
    pub(crate) fn know(&self, facts: &[Fact]) {
        fs::write(self.directory().join("known.json"), serde_json::to_vec(facts).unwrap()).unwrap();
    }

    /// Types and ids of everything published so far.
    pub(crate) fn published(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory().join("published")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn published_types(&self) -> Vec<String> {
        let first = |line: String| line.split(' ').next().unwrap().to_owned();
        self.published().into_iter().map(first).collect()
    }

    pub(crate) async fn report(&self) -> Report {
        match self.supervisor.status(self.order).await.unwrap() {
            Standing::Open(report) => report,
            other => panic!("not open: {other:?}"),
        }
    }

    pub(crate) async fn closes(&self, status: Status) {
        let closed = eventually("the workflow closes", async || {
            let standing = self.supervisor.status(self.order).await;
            match standing {
                Ok(Standing::Closed(closed)) => Ok(closed),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(closed, status);
    }

    pub(crate) async fn publishes(&self, types: &[&str]) {
        eventually("requests are published", async || match self.published_types() {
            seen if seen == types => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
    }

    pub(crate) async fn client(&self) -> Client {
        self.settings.connect().await.unwrap()
    }

    pub(crate) async fn history(&self) -> serde_json::Value {
        let client = self.client().await;
        let handle = client.get_workflow_handle::<OrderWorkflow>(workflow_id(self.order));
        let history = handle.fetch_history(WorkflowFetchHistoryOptions::default());
        serde_json::from_slice(&history.to_json().await.unwrap()).unwrap()
    }
}

pub(crate) async fn stop(worker: (Shutdown, tokio::task::JoinHandle<anyhow::Result<()>>)) {
    worker.0.begin();
    tokio::time::timeout(PATIENCE, worker.1).await.unwrap().unwrap().unwrap();
}

pub(crate) fn settings(address: &str) -> Settings {
    Settings::from_toml(&format!("[profile.default]\naddress = \"{address}\"")).unwrap()
}

pub(crate) fn temporal_address() -> String {
    const HOW: &str = "these tests need servers: run `make test`, or bring some up with \
                       `export ORDER_STACK_STATE_DIR=/tmp/test-stack; order-stack up --ports free`";
    let directory = std::env::var_os("ORDER_STACK_STATE_DIR").expect(HOW);
    let env = Stack::attach(directory).expect(HOW).env().unwrap();
    env.into_iter().find(|(name, _)| *name == "TEMPORAL_ADDRESS").expect(HOW).1
}

pub(crate) fn fact(kind: FactKind) -> Fact {
    Fact { id: Uuid::new_v4(), kind, reason: None }
}

pub(crate) fn because(kind: FactKind, reason: &str) -> Fact {
    Fact { reason: Some(reason.to_owned()), ..fact(kind) }
}

/// Looks until it succeeds; fails with what was seen last.
pub(crate) async fn eventually<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = match look().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}; seen last: {seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A world whose topic and tables are files.
pub(crate) struct Files(pub(crate) PathBuf);

impl World for Files {
    fn publish(
        &self,
        event: SagaEvent,
        _: Option<TraceContext>,
    ) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let file = File::options().create(true).append(true).open(self.0.join("published"));
            Ok(writeln!(file?, "{} {}", event.event.event_type().as_str(), event.id)?)
        })
    }

    fn look(&self, _: OrderId) -> BoxFuture<'_, anyhow::Result<Vec<Fact>>> {
        Box::pin(async move {
            let known = fs::read(self.0.join("known.json")).unwrap_or_else(|_| b"[]".to_vec());
            Ok(serde_json::from_slice(&known)?)
        })
    }
}
