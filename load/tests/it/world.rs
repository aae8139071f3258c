//! What a test lives in: a pipeline of its own on the servers that all tests share, and the auditor at its end.

use std::path::PathBuf;
use std::time::Duration;

use consumers::stages::{CATALOGUE, Entry};
use load::orders::Run;
use load::pipeline::{Audit, Pipeline, READY_PATIENCE, STOP_PATIENCE, Setup};
use load::process::{Process, Spec};
use producers::generate::{Generator, Mix};
use producers::request::OrderRequest;
use stack::Stack;

/// Longest wait for a pipeline to come to rest, after whatever was done to it.
pub(crate) const REST_PATIENCE: Duration = Duration::from_secs(90);

/// Few enough to start quickly, and more than one per lane.
pub(crate) const SETUP: Setup = Setup {
    partitions: 4,
    replication: 1,
    skus: 100,
    quantity: 1_000_000,
    scarce: 10,
    scarce_quantity: 0,
};

/// A killed member is missed soon, and a dependency that is back is noticed soon.
pub(crate) const HASTY: [&str; 4] = ["--session-timeout-ms", "2000", "--retry-max-ms", "200"];

/// A pipeline of its own.
pub(crate) struct World {
    pub(crate) pipeline: Pipeline,
    directory: PathBuf,
}

impl World {
    /// Topics, tables and stock, and nothing at work yet.
    pub(crate) async fn new(name: &str, setup: Setup) -> Self {
        Self::on(&shared_stack(), name, setup).await
    }

    /// The same with workflows for its orders, and `settings` for every program.
    pub(crate) async fn supervised(name: &str, setup: Setup, settings: &[(&str, &str)]) -> Self {
        Self::supervised_on(&shared_stack(), name, setup, settings).await
    }

    /// The same on servers of one's own.
    pub(crate) async fn supervised_on(
        stack: &Stack,
        name: &str,
        setup: Setup,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut world = Self::on(stack, name, setup).await;
        world.pipeline.supervise(stack).unwrap();
        world.pipeline.set(settings);
        world
    }

    /// The same on servers of one's own, which may be broken.
    pub(crate) async fn on(stack: &Stack, name: &str, setup: Setup) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", &id[..8]));
        let pipeline = Pipeline::separate(stack, name, &directory).await.unwrap();
        pipeline.set_up(setup).await.unwrap();
        Self { pipeline, directory }
    }

    /// Starts `stages` (all of them when none is named) in one process, ready to work.
    pub(crate) async fn stages(&self, stages: &[&str]) -> Process {
        let name = if stages.is_empty() { "all".to_owned() } else { stages.join("-") };
        self.pipeline.start_stages(&name, stages, hasty).await.unwrap()
    }

    /// Waits for rest, and insists that every order placed came to its end, once.
    pub(crate) async fn expect_reconciled(&self, placed: u64) -> Audit {
        let audit = self.audit().await;
        assert!(
            audit.reconciled && audit.placed == placed,
            "{placed} orders were placed: {audit:#?}"
        );
        audit
    }

    /// Waits for rest, and insists that nothing is lost, doubled or told differently in two places.
    pub(crate) async fn expect_sound(&self) -> Audit {
        let audit = self.audit().await;
        assert!(audit.is_sound() && audit.quiet, "{audit:#?}");
        audit
    }

    async fn audit(&self) -> Audit {
        self.pipeline.audit(REST_PATIENCE).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the logs of the programs are in {}", self.directory.display());
        } else {
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }
}

/// The stages that need no Temporal: where orders have no workflows, the other one does not run.
pub(crate) fn unsupervised_stages() -> impl Iterator<Item = &'static Entry> {
    CATALOGUE.iter().filter(|stage| stage.name != "workflow")
}

/// With settings that do not keep a test waiting.
pub(crate) fn hasty(spec: Spec) -> Spec {
    spec.arguments(HASTY)
}

/// Orders of which some are declined and some ask for what is not there.
pub(crate) fn mixed_orders(count: usize, seed: u64) -> impl Iterator<Item = OrderRequest> {
    let mix = Mix {
        seed,
        skus: SETUP.skus,
        decline_ratio: 0.1,
        out_of_stock_ratio: 0.1,
        ..Mix::default()
    };
    Generator::new(mix).take(count)
}

/// Orders that all ship when nobody interferes.
pub(crate) fn plain_orders(count: usize, seed: u64) -> impl Iterator<Item = OrderRequest> {
    let mix = Mix {
        seed,
        skus: SETUP.skus,
        decline_ratio: 0.0,
        out_of_stock_ratio: 0.0,
        ..Mix::default()
    };
    Generator::new(mix).take(count)
}

/// Places orders, cancelling every `cancel_every`-th right away.
pub(crate) fn run(cancel_every: u64) -> Run {
    Run { cancel_every, ..Run::default() }
}

/// Waits until `process` is ready.
pub(crate) async fn ready(process: &mut Process) {
    process.ready(READY_PATIENCE).await.unwrap();
}

/// An orderly end.
pub(crate) async fn stop(mut process: Process) {
    process.stop(STOP_PATIENCE).await.unwrap();
}

fn shared_stack() -> Stack {
    const HOW: &str = "these tests need servers: run `make test`, or bring some up with \
                       `export ORDER_STACK_STATE_DIR=/tmp/test-stack; order-stack up --ports free`";
    let directory = std::env::var_os("ORDER_STACK_STATE_DIR").expect(HOW);
    Stack::attach(directory).expect(HOW)
}
