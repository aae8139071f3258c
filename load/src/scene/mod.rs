//! What alerts and boards are proven on: one stack whose watchers live in faster time, the pipeline with each stage in a process
//! of its own, ordinary orders, and the ends where alerts arrive. Whoever breaks its parts must leave them whole.

pub(crate) mod background;
pub(crate) mod gateway;
pub(crate) mod history;
pub(crate) mod prometheus;
pub(crate) mod receiver;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Method;
use schemas::Topic;
use sqlx::{Connection, PgConnection};
use stack::{Ports, Progress, Stack, StackOptions};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use self::background::Background;
use self::gateway::Gateway;
use self::prometheus::Prometheus;
use self::receiver::Receiver;
use crate::eventually::eventually;
use crate::pipeline::{Pipeline, Producer, READY_PATIENCE, STOP_PATIENCE, Setup, free_addresses};
use crate::process::{Process, Spec};
use crate::signals::Signals;

/// How many times as fast as in `prometheus/` time passes for Prometheus and Alertmanager: a day takes an hour, a scrape
/// comes every 0.625 s, and every window holds as many of them as before.
pub(crate) const FASTER: u32 = 24;

/// Few enough to start quickly; as many lanes, so that a partition that is held up holds up no other.
pub(crate) const PARTITIONS: u32 = 4;
pub(crate) const SKUS: u32 = 100;

/// Enough for every window to hold some, little enough for two cores.
pub(crate) const ORDERS_PER_SECOND: u32 = 20;

/// Temporal's development server has to share those two cores.
const SUPERVISED_PER_SECOND: u32 = 6;

/// How long servers may take to answer again.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    pub(crate) stack: Arc<Stack>,
    pub(crate) pipeline: Pipeline,
    pub(crate) producer: Mutex<Producer>,
    pub(crate) lag_exporter: Mutex<Process>,
    /// The auditor, as the batch job that it is.
    pub(crate) reconciler: Mutex<Process>,
    worker: Option<Mutex<Process>>,
    stages: BTreeMap<&'static str, Mutex<Process>>,
    pub(crate) gateway: Gateway,
    pub(crate) receiver: Receiver,
    pub(crate) prometheus: Prometheus,
    pub(crate) orders: Background,
    http: reqwest::Client,
    pushgateway: String,
}

impl Scene {
    /// Brings everything up. With `temporal`, orders have workflows. None come in yet.
    pub(crate) async fn open(
        state_dir: &Path,
        temporal: bool,
        signals: Option<&Signals>,
    ) -> anyhow::Result<Self> {
        let receiver = Receiver::listen().await?;
        let gateway = Gateway::serve().await?;
        let servers = ["kafka", "postgres"].into_iter().chain(temporal.then_some("temporal"));
        let options = StackOptions {
            ports: Ports::Free,
            only: servers.map(str::to_owned).collect(),
            with: vec![stack::MONITORING.to_owned()],
            alert_receiver: Some(receiver.http),
            alert_mail: Some(receiver.mail),
            monitoring_faster: FASTER,
            progress: Progress::on_stderr(),
            interrupt: signals.map(Signals::interrupt).unwrap_or_default(),
            ..StackOptions::for_tests(state_dir)
        };
        let stack = spawn_blocking(move || Stack::up(&options))
            .await
            .context("the thread that starts servers ended")??;
        Self::on(Arc::new(stack), temporal, receiver, gateway).await
    }

    async fn on(
        stack: Arc<Stack>,
        temporal: bool,
        receiver: Receiver,
        gateway: Gateway,
    ) -> anyhow::Result<Self> {
        let url = |name: &str| -> anyhow::Result<String> {
            let found = stack.env()?.into_iter().find(|(known, _)| *known == name);
            Ok(found.with_context(|| format!("this stack has no {name}"))?.1)
        };
        let (prometheus, pushgateway) = (url("PROMETHEUS_URL")?, url("PUSHGATEWAY_URL")?);
        let directory = stack.state_dir().join("programs");
        let mut pipeline = Pipeline::separate(&stack, "scene", &directory).await?;
        pipeline.keep_from_terminal();
        if temporal {
            pipeline.supervise(&stack)?;
        }
        pipeline.set(&[
            ("PAYMENT_GATEWAY_URL", &gateway.url()),
            ("LANES", "4"),
            // A killed member is missed soon, and what is back is noticed soon.
            ("SESSION_TIMEOUT_MS", "2000"),
            ("RETRY_MAX_MS", "200"),
            // The exporter's own lengths of time, in the same faster time.
            ("LAG_INTERVAL_MS", "500"),
            ("LAG_STALE_MS", &shorter(60).as_millis().to_string()),
            ("LAG_STUCK_MS", &shorter(120).as_millis().to_string()),
            ("LAG_TREND_MS", &shorter(60).as_millis().to_string()),
        ]);
        let setup = Setup {
            partitions: PARTITIONS,
            skus: SKUS,
            quantity: 1_000_000,
            scarce: 0,
            ..Setup::default()
        };
        pipeline.set_up(setup).await?;
        let producer = pipeline.start_producer(|spec| spec).await?;
        let names = consumers::stages::CATALOGUE.iter().map(|stage| stage.name);
        let [lag, worker, sdk, signals, nowhere] = free_addresses()?;
        let mut stages = BTreeMap::new();
        for name in names.filter(|name| temporal || *name != "workflow") {
            // Only the stage that signals Temporal has a client there, whose metrics have a port of their own.
            let told = |spec: Spec| match name {
                "workflow" => spec.with("TEMPORAL_CLIENT_METRICS_ADDRESS", signals.to_string()),
                _ => spec,
            };
            stages.insert(name, Mutex::new(pipeline.launch_stages(name, &[name], told)?));
        }
        let lag_exporter = Process::start(pipeline.lag_exporter("lag-exporter", lag))?;
        let worker_process =
            temporal.then(|| Process::start(pipeline.worker("worker", worker, sdk))).transpose()?;
        let reconciler = Process::start(reconciler(&pipeline, &pushgateway, nowhere))?;
        let orders = Background::start(producer.client.clone(), SKUS)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build();
        let scene = Self {
            prometheus: Prometheus::at(&prometheus)?,
            http: http.context("build an HTTP client")?,
            producer: Mutex::new(producer),
            lag_exporter: Mutex::new(lag_exporter),
            reconciler: Mutex::new(reconciler),
            worker: worker_process.map(Mutex::new),
            stack,
            pipeline,
            stages,
            gateway,
            receiver,
            orders,
            pushgateway,
        };
        scene.announce(lag, worker, &[sdk, signals]).await?;
        scene.ready().await?;
        Ok(scene)
    }

    /// Tells Prometheus where the programs are.
    async fn announce(
        &self,
        lag: SocketAddr,
        worker: SocketAddr,
        temporal: &[SocketAddr],
    ) -> anyhow::Result<()> {
        let producer = self.producer.lock().await.process.admin();
        self.targets("order_processing_api", &[producer])?;
        self.targets("lag_exporter", &[lag])?;
        let mut stages = Vec::new();
        for stage in self.stages.values() {
            stages.push(stage.lock().await.admin());
        }
        self.targets("consumers", &stages)?;
        if self.worker.is_some() {
            self.targets("worker", &[worker])?;
            self.targets("temporal", temporal)?;
        }
        Ok(())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        for stage in self.stages.values() {
            stage.lock().await.ready(READY_PATIENCE).await?;
        }
        self.lag_exporter.lock().await.ready(READY_PATIENCE).await?;
        if let Some(worker) = &self.worker {
            worker.lock().await.ready(READY_PATIENCE).await?;
        }
        Ok(())
    }

    pub(crate) fn targets(&self, job: &str, addresses: &[SocketAddr]) -> anyhow::Result<()> {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        self.stack.set_targets(job, &addresses)
    }

    /// The process of a stage.
    pub(crate) async fn stage(&self, name: &str) -> anyhow::Result<MutexGuard<'_, Process>> {
        let stage = self.stages.get(name);
        Ok(stage.with_context(|| format!("{name} does not run here"))?.lock().await)
    }

    pub(crate) async fn worker(&self) -> anyhow::Result<MutexGuard<'_, Process>> {
        Ok(self.worker.as_ref().context("no worker runs here")?.lock().await)
    }

    /// A file of settings for clients of Temporal.
    pub(crate) fn temporal_profile(&self) -> anyhow::Result<String> {
        let address = self.stack.env()?.into_iter().find(|(name, _)| *name == "TEMPORAL_ADDRESS");
        let (_, address) = address.context("this stack has no Temporal")?;
        Ok(format!("[profile.default]\naddress = \"{address}\""))
    }

    /// Where the worker looks for work.
    pub(crate) fn task_queue(&self) -> String {
        format!("{}orders", self.pipeline.prefix())
    }

    /// Orders per second that go well with every window and with two cores.
    pub(crate) fn usual_rate(&self) -> u32 {
        if self.worker.is_some() { SUPERVISED_PER_SECOND } else { ORDERS_PER_SECOND }
    }

    pub(crate) fn topic(&self, topic: Topic) -> String {
        self.pipeline.prefix().topic(topic)
    }

    /// A connection to the pipeline's database that may hold a transaction for as long as a fault lasts.
    pub(crate) async fn database(&self) -> anyhow::Result<PgConnection> {
        let options = self
            .pipeline
            .database()
            .clone()
            .options([("idle_in_transaction_session_timeout", "0")]);
        PgConnection::connect_with(&options).await.context("connect to Postgres")
    }

    /// Breaks or mends a server of the stack.
    pub(crate) async fn server(
        &self,
        act: impl FnOnce(&Stack) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let stack = self.stack.clone();
        spawn_blocking(move || act(&stack)).await.context("the thread that signals ended")?
    }

    /// Talks to the Pushgateway as any job may; answers the status.
    pub(crate) async fn push(
        &self,
        method: Method,
        group: &str,
        text: String,
    ) -> anyhow::Result<u16> {
        let url = format!("{}/metrics/job/{group}", self.pushgateway);
        let answer = self.http.request(method, url).body(text).send().await;
        Ok(answer.context("talk to the Pushgateway")?.status().as_u16())
    }

    /// Runs the auditor once, as a person would; whatever it finds.
    pub(crate) async fn reconcile_now(&self) -> anyhow::Result<bool> {
        let run = ["reconcile", "--push", &self.pushgateway];
        Ok(self.pipeline.try_tool(&run).await?.status.success())
    }

    /// Takes away what the auditor has pushed, as for a job that will not run again.
    pub(crate) async fn retire_auditor(&self) -> anyhow::Result<()> {
        let retire = ["reconcile", "--retire", "--push", &self.pushgateway];
        self.pipeline.tool(&retire).await.map(drop)
    }

    /// Waits until Postgres takes connections again.
    pub(crate) async fn database_answers(&self) -> anyhow::Result<()> {
        eventually(SERVER_PATIENCE, "Postgres answers", async || self.database().await.map(drop))
            .await
    }

    /// Stops every program in order, then the servers, and removes them.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let Self { stack, producer, lag_exporter, reconciler, worker, stages, orders, .. } = self;
        drop(orders);
        let programs = stages.into_values().chain([lag_exporter, reconciler]).chain(worker);
        let mut programs: Vec<_> = programs.map(Mutex::into_inner).collect();
        programs.push(producer.into_inner().process);
        let stopping =
            programs.iter_mut().map(|program| async { program.stop(STOP_PATIENCE).await });
        let stopped = futures::future::join_all(stopping).await;
        let stack = Arc::into_inner(stack).context("somebody still holds the stack")?;
        spawn_blocking(move || stack.down(stack::Down::RemoveEverything))
            .await
            .context("the thread that stops servers ended")?
            .context("take the servers down")?;
        stopped.into_iter().collect()
    }
}

/// The auditor as an hourly job, in faster time.
fn reconciler(pipeline: &Pipeline, pushgateway: &str, admin: SocketAddr) -> Spec {
    let every = format!("{}s", shorter(3600).as_secs());
    pipeline.auditor("reconciler", admin).arguments(["--push", pushgateway, "--every", &every])
}

/// `seconds` of the files in `prometheus/`, here.
pub(crate) fn shorter(seconds: u64) -> Duration {
    Duration::from_secs(seconds) / FASTER
}
