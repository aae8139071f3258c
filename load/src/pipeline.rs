//! One pipeline on a stack: its topics, its database, and the programs that work on them.
//!
//! Several share the servers without meeting: each has a prefix and a database of its own. Only the demo's has neither,
//! so that people find the names of the documentation.

mod auditor;
mod binaries;
mod tables;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use schemas::TopicPrefix;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use stack::Stack;
use tokio::process::Command;

pub use self::auditor::{Audit, Finding};
pub use self::binaries::Binaries;
pub use self::tables::{FINAL, Fate, Latency, Tables};

use crate::orders::Client;
use crate::process::{Process, Spec};

/// Names the file that holds the URL of the database, which itself is a secret.
const URL_FILE_VARIABLE: &str = "DATABASE_URL_FILE";
const URL_FILE: &str = "database-url";
/// Names Temporal, as for every Temporal client.
const TEMPORAL_VARIABLE: &str = "TEMPORAL_ADDRESS";

/// A cold start on two busy cores takes a few seconds; a killed group member is missed for its session on top.
pub const READY_PATIENCE: Duration = Duration::from_secs(60);
/// The programs' own bound on an orderly end is ten seconds.
pub const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Where a pipeline lives.
#[derive(Debug)]
pub struct Pipeline {
    binaries: Binaries,
    brokers: String,
    prefix: TopicPrefix,
    database: PgConnectOptions,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    own_group: bool,
    /// Whether orders have workflows in Temporal.
    supervised: bool,
}

/// A producer at work, and how to talk to it.
#[derive(Debug)]
pub struct Producer {
    pub process: Process,
    pub client: Client,
    pub api: SocketAddr,
}

/// Topics and stock to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub partitions: u32,
    /// Copies of each record; of three, two must be there for a write to count.
    pub replication: u32,
    pub skus: u32,
    /// Pieces of each.
    pub quantity: u32,
    /// SKUs of which there is too little: SKU-SCARCE-00 and up.
    pub scarce: u32,
    pub scarce_quantity: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            partitions: 8,
            replication: 1,
            skus: 1_000,
            quantity: 1_000_000,
            scarce: 10,
            scarce_quantity: 0,
        }
    }
}

impl Pipeline {
    /// The pipeline under the documented names: database `orders`, no prefix. Its processes are out of reach of a Ctrl-C
    /// in the terminal.
    pub fn documented(stack: &Stack) -> anyhow::Result<Self> {
        let url_file = stack.env()?.into_iter().find(|(name, _)| *name == URL_FILE_VARIABLE);
        let (_, url_file) = url_file.context("this stack has no Postgres")?;
        Self::new(stack, TopicPrefix::default(), url_file, stack.state_dir().join("logs"), true)
    }

    /// A pipeline of its own; its logs and the file with its database's password go to `directory`.
    pub async fn separate(stack: &Stack, name: &str, directory: &Path) -> anyhow::Result<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let id = &id[..10];
        let common: PgConnectOptions =
            stack.database_url()?.parse().context("read the URL of the database")?;
        let mut db = PgConnection::connect_with(&common).await.context("connect to Postgres")?;
        let database = format!("pipeline_{id}");
        // The name is made of letters and digits, just above.
        let create = format!("create database {database}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut db).await.context("create a database")?;
        let mut url: reqwest::Url =
            stack.database_url()?.parse().context("read the URL of the database")?;
        url.set_path(&database);
        let prefix = format!("{name}-{id}.").parse().context("make a topic prefix")?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let url_file = directory.join(URL_FILE);
        write_private(&url_file, url.as_str())?;
        Self::new(stack, prefix, url_file.display().to_string(), directory.to_owned(), false)
    }

    fn new(
        stack: &Stack,
        prefix: TopicPrefix,
        url_file: String,
        directory: PathBuf,
        own_group: bool,
    ) -> anyhow::Result<Self> {
        Self::at(stack.kafka_brokers()?, prefix, url_file, directory, own_group)
    }

    fn at(
        brokers: String,
        prefix: TopicPrefix,
        url_file: String,
        directory: PathBuf,
        own_group: bool,
    ) -> anyhow::Result<Self> {
        let url = std::fs::read_to_string(&url_file).with_context(|| format!("read {url_file}"))?;
        let database: PgConnectOptions = url.parse().context("read the URL of the database")?;
        let environment = [
            ("KAFKA_BROKERS", brokers.clone()),
            ("TOPIC_PREFIX", prefix.to_string()),
            (URL_FILE_VARIABLE, url_file),
            ("LOG_FORMAT", "text".to_owned()),
        ];
        Ok(Self {
            binaries: Binaries::find()?,
            brokers,
            prefix,
            database: database.disable_statement_logging(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            directory,
            own_group,
            supervised: false,
        })
    }

    /// From here on its orders have workflows, on a task queue of its own. Needs a stack with Temporal.
    pub fn supervise(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let address = stack.env()?.into_iter().find(|(name, _)| *name == TEMPORAL_VARIABLE);
        let (_, address) = address.context("this stack has no Temporal")?;
        self.environment.push((TEMPORAL_VARIABLE.to_owned(), address));
        let task_queue = format!("{}orders", self.prefix);
        self.environment.push(("TEMPORAL_TASK_QUEUE".to_owned(), task_queue));
        self.supervised = true;
        Ok(())
    }

    /// The pipeline that the environment names, as for its own programs. Nothing of it is started or stopped from here.
    pub fn from_environment(directory: &Path) -> anyhow::Result<Self> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let prefix = std::env::var("TOPIC_PREFIX").unwrap_or_default();
        let prefix = prefix.parse().context("read TOPIC_PREFIX")?;
        let url_file = variable(URL_FILE_VARIABLE)?;
        Self::at(variable("KAFKA_BROKERS")?, prefix, url_file, directory.to_owned(), true)
    }

    /// From here on its programs are out of reach of a Ctrl-C in the terminal, so that whoever started them can end them
    /// in order.
    pub fn keep_from_terminal(&mut self) {
        self.own_group = true;
    }

    /// More variables for every program and tool started from here on.
    pub fn set(&mut self, settings: &[(&str, &str)]) {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.environment.extend(settings);
    }

    /// Removes the file with the password of a database that is no more; logs stay.
    pub fn forget_password(&self) -> anyhow::Result<()> {
        let file = self.directory.join(URL_FILE);
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub fn prefix(&self) -> &TopicPrefix {
        &self.prefix
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The folder of its programs.
    pub fn programs(&self) -> &Path {
        self.binaries.folder()
    }

    /// Tables, topics and stock.
    pub async fn set_up(&self, setup: Setup) -> anyhow::Result<()> {
        self.tool(&["migrate"]).await?;
        let Setup { partitions, replication, skus, quantity, scarce, scarce_quantity } = setup;
        let number = |number: u32| number.to_string();
        let [partitions, copies] = [partitions, replication].map(number);
        let in_sync = number(if replication >= 3 { 2 } else { 1 });
        self.tool(&[
            "topics",
            "--partitions",
            &partitions,
            "--replication",
            &copies,
            "--min-in-sync",
            &in_sync,
        ])
        .await?;
        let [skus, quantity, scarce, scarce_quantity] =
            [skus, quantity, scarce, scarce_quantity].map(number);
        self.tool(&[
            "stock",
            "--skus",
            &skus,
            "--quantity",
            &quantity,
            "--scarce",
            &scarce,
            "--scarce-quantity",
            &scarce_quantity,
        ])
        .await?;
        Ok(())
    }

    /// Runs a command of order-consumer to its end and returns what it said; an error when it fails.
    pub async fn tool(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.try_tool(arguments).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "order-consumer {} ended with {}\n{complaint}{said}",
                arguments.join(" "),
                output.status
            );
        }
        Ok(said)
    }

    /// The same, however it ends.
    pub async fn try_tool(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(&self.binaries.consumer)
            .args(arguments)
            .output()
            .await
            .with_context(|| format!("run order-consumer {}", arguments.join(" ")))
    }

    /// A command that dies with its handle and sees this pipeline.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(self.variables()).stdin(Stdio::null()).kill_on_drop(true);
        if self.own_group {
            command.process_group(0);
        }
        command
    }

    fn variables(&self) -> impl Iterator<Item = (OsString, OsString)> {
        self.environment.iter().map(|(name, value)| (name.into(), value.into()))
    }

    /// How to start order-producer.
    pub fn producer(&self, api: SocketAddr, admin: SocketAddr) -> Spec {
        let addresses = [api.to_string(), admin.to_string()];
        let spec = self.spec("producer", &self.binaries.producer, admin);
        spec.arguments(["serve", "--listen", &addresses[0], "--admin-listen", &addresses[1]])
    }

    /// How to start order-consumer with `stages`; with all of them when none is named, but for the one that signals
    /// Temporal where orders have no workflows.
    pub fn stages(&self, name: &str, stages: &[&str], admin: SocketAddr) -> Spec {
        let address = admin.to_string();
        let spec = self.spec(name, &self.binaries.consumer, admin).arguments([
            "run",
            "--admin-listen",
            &address,
        ]);
        match stages {
            [] if self.supervised => spec.arguments(["--all"]),
            [] => spec.arguments(["--all", "--except", "workflow"]),
            stages => spec.arguments(stages.iter().flat_map(|stage| ["--stage", *stage])),
        }
    }

    /// How to start the worker of the orders' workflows.
    pub fn worker(&self, name: &str, admin: SocketAddr, metrics: SocketAddr) -> Spec {
        let addresses = [admin.to_string(), metrics.to_string()];
        let spec = self.spec(name, &self.binaries.consumer, admin);
        spec.arguments([
            "worker",
            "--admin-listen",
            &addresses[0],
            "--temporal-metrics-address",
            &addresses[1],
        ])
    }

    /// How to start the exporter of every consumer group's lag.
    pub fn lag_exporter(&self, name: &str, admin: SocketAddr) -> Spec {
        let spec = self.spec(name, &self.binaries.consumer, admin);
        spec.arguments(["lag-exporter", "--admin-listen", &admin.to_string()])
    }

    /// How to start the auditor; `admin` is nobody's, since it serves nothing.
    pub fn auditor(&self, name: &str, admin: SocketAddr) -> Spec {
        self.spec(name, &self.binaries.consumer, admin).arguments(["reconcile"])
    }

    fn spec(&self, name: &str, program: &Path, admin: SocketAddr) -> Spec {
        Spec {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: self.environment.clone(),
            admin,
            log: self.directory.join(format!("{name}.log")),
            own_group: self.own_group,
        }
    }

    /// Starts a producer on free ports and waits until it is ready.
    pub async fn start_producer(
        &self,
        change: impl FnOnce(Spec) -> Spec,
    ) -> anyhow::Result<Producer> {
        let [api, admin] = free_addresses()?;
        let mut producer = Producer {
            process: Process::start(change(self.producer(api, admin)))?,
            client: Client::new(api)?,
            api,
        };
        producer.process.ready(READY_PATIENCE).await?;
        Ok(producer)
    }

    /// Starts a worker on free ports and waits until it is ready.
    pub async fn start_worker(
        &self,
        name: &str,
        change: impl FnOnce(Spec) -> Spec,
    ) -> anyhow::Result<Process> {
        let [admin, metrics] = free_addresses()?;
        let mut process = Process::start(change(self.worker(name, admin, metrics)))?;
        process.ready(READY_PATIENCE).await?;
        Ok(process)
    }

    /// Starts stages on a free port and waits until they are ready.
    pub async fn start_stages(
        &self,
        name: &str,
        stages: &[&str],
        change: impl FnOnce(Spec) -> Spec,
    ) -> anyhow::Result<Process> {
        let mut process = self.launch_stages(name, stages, change)?;
        process.ready(READY_PATIENCE).await?;
        Ok(process)
    }

    /// The same without waiting, for a process that will not live until it is ready.
    pub fn launch_stages(
        &self,
        name: &str,
        stages: &[&str],
        change: impl FnOnce(Spec) -> Spec,
    ) -> anyhow::Result<Process> {
        let [admin] = free_addresses()?;
        Process::start(change(self.stages(name, stages, admin)))
    }

    /// How to connect to the database.
    pub fn database(&self) -> &PgConnectOptions {
        &self.database
    }

    /// A look into the database.
    pub async fn tables(&self) -> anyhow::Result<Tables> {
        Tables::connect(&self.database).await
    }
}

/// Addresses on loopback that nobody listens on.
pub fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let ports = stack::free_ports(N)?;
    let addresses: Vec<SocketAddr> =
        ports.into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect();
    addresses.try_into().map_err(|_| anyhow::anyhow!("found fewer free ports than {N}"))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))
}
