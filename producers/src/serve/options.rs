//! The settings of `serve`: every default with its reason, every mistake reported at once.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sqlx::postgres::PgConnectOptions;
use telemetry::AdminArgs;

use crate::api::{Limits, parse_duration};
use crate::kafka::KafkaArgs;
use crate::postgres;
use crate::publisher::PublisherSettings;
use crate::server::ConnectionLimits;

/// Settings of the HTTP API.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address of the API. Loopback by default: put TLS and authentication in front before opening it.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub admin: AdminArgs,

    /// From a request's headers to its answer; a long poll's wait comes on top.
    // Above the delivery timeout, so that the broker's silence becomes a 503 instead of nothing.
    #[arg(long, env = "REQUEST_TIMEOUT", value_parser = duration, default_value = "10s", help_heading = "Limits")]
    pub request_timeout: Duration,

    /// How long a connection may take to send a request's headers, or stay idle before them.
    // Slow networks need one second; slower clients hold a place that others want.
    #[arg(long, env = "HEADER_TIMEOUT", value_parser = duration, default_value = "5s", help_heading = "Limits")]
    pub header_timeout: Duration,

    /// Longest ?wait= of a long poll.
    // Proxies commonly cut a silent answer at 60 s.
    #[arg(long, env = "MAX_WAIT", value_parser = duration, default_value = "30s", help_heading = "Limits")]
    pub max_wait: Duration,

    /// Connections at a time; those beyond are answered 503 and closed.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 4_096, help_heading = "Limits")]
    pub max_connections: usize,

    /// Single orders being written at a time; beyond: 503.
    // In an outage of the broker each holds its request until the delivery timeout.
    #[arg(long, env = "MAX_WRITES", default_value_t = 2_048, help_heading = "Limits")]
    pub max_writes: usize,

    /// Batches in memory at a time, 4 MiB each at most; beyond: 503.
    #[arg(long, env = "MAX_BATCHES", default_value_t = 64, help_heading = "Limits")]
    pub max_batches: usize,

    /// Requests that wait for an order at a time; beyond: 503.
    // All of them cost one query per 50 ms and thousand.
    #[arg(long, env = "MAX_WAITERS", default_value_t = 2_000, help_heading = "Limits")]
    pub max_waiters: usize,

    /// How long a record waits for company before it goes to the broker, in milliseconds.
    // Batches grow by themselves under load; this only costs latency when there is little to do.
    #[arg(long, env = "LINGER_MS", default_value_t = 2, help_heading = "Kafka")]
    pub linger_ms: u64,

    /// After this a record that the broker did not acknowledge is answered with 503: outcome unknown.
    #[arg(long, env = "DELIVERY_TIMEOUT", value_parser = duration, default_value = "8s", help_heading = "Kafka")]
    pub delivery_timeout: Duration,

    /// Idempotency keys remembered in this process; older ones are looked up in the projection.
    // About 200 bytes each.
    #[arg(
        long,
        env = "IDEMPOTENCY_ORDERS",
        default_value_t = 200_000,
        help_heading = "Idempotency"
    )]
    pub idempotency_orders: u64,

    /// How long they are remembered.
    // The IETF draft leaves it open; a day is what payment APIs promise.
    #[arg(long, env = "IDEMPOTENCY_AGE", value_parser = duration, default_value = "86400s", help_heading = "Idempotency")]
    pub idempotency_age: Duration,

    /// Connections for reads. The database comes from DATABASE_URL or DATABASE_URL_FILE; without it orders are
    /// taken and cannot be read.
    // Reads take about 1 ms: eight serve thousands per second.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 8, help_heading = "Database")]
    pub database_connections: u32,
}

/// Settings that cannot work.
#[derive(Debug)]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    /// A single one.
    pub fn one(error: anyhow::Error) -> Self {
        Self(vec![format!("{error:#}")])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these settings cannot work:")?;
        for mistake in &self.0 {
            write!(f, "\n  - {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl ServeArgs {
    /// Checks everything that can be checked before anything is bound or connected. Answers with the database, if
    /// one is configured.
    pub fn check(&self, kafka: &KafkaArgs) -> Result<Option<PgConnectOptions>, Mistakes> {
        let mut mistakes = Vec::new();
        let mut require = |holds: bool, mistake: &str| {
            if !holds {
                mistakes.push(mistake.to_owned());
            }
        };
        require(
            self.listen.port() == 0 || self.listen != self.admin_listen(),
            "--listen and --admin-listen are the same address",
        );
        require(
            self.delivery_timeout < self.request_timeout,
            "--delivery-timeout must be shorter than --request-timeout, or clients hear nothing instead of 503",
        );
        require(
            Duration::from_millis(self.linger_ms) < self.delivery_timeout,
            "--linger-ms must be shorter than --delivery-timeout",
        );
        require(!self.header_timeout.is_zero(), "--header-timeout must be longer than 0");
        require(!self.idempotency_age.is_zero(), "--idempotency-age must be longer than 0");
        for (name, number) in [
            ("--max-connections", self.max_connections),
            ("--max-writes", self.max_writes),
            ("--max-batches", self.max_batches),
            ("--max-waiters", self.max_waiters),
        ] {
            require(
                (1..=1_000_000).contains(&number),
                &format!("{name} must be from 1 to 1000000"),
            );
        }
        require(
            (1..=1_000).contains(&self.database_connections),
            "--database-connections must be from 1 to 1000",
        );
        let brokers = &kafka.kafka_brokers;
        require(
            !brokers.is_empty() && brokers.split(',').all(is_address),
            "--kafka-brokers must be host:port, or several of them with commas between",
        );
        if let Err(error) = kafka.client_config("order-producer") {
            mistakes.push(format!("{error:#}"));
        }
        let database = database().unwrap_or_else(|error| {
            mistakes.push(format!("{error:#}"));
            None
        });
        if mistakes.is_empty() { Ok(database) } else { Err(Mistakes(mistakes)) }
    }

    /// Where operators look.
    pub fn admin_listen(&self) -> SocketAddr {
        self.admin.admin_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9101)))
    }

    pub(super) fn publisher(&self) -> PublisherSettings {
        PublisherSettings {
            linger: Duration::from_millis(self.linger_ms),
            delivery_timeout: self.delivery_timeout,
            ..PublisherSettings::default()
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            writes: self.max_writes,
            batches: self.max_batches,
            deadline: self.request_timeout,
            wait: self.max_wait,
            ..Limits::default()
        }
    }

    pub(super) fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.max_connections,
            header_timeout: self.header_timeout,
            ..ConnectionLimits::default()
        }
    }
}

/// The database of the environment; none when it names none.
fn database() -> anyhow::Result<Option<PgConnectOptions>> {
    let named =
        ["DATABASE_URL", "DATABASE_URL_FILE"].iter().any(|name| std::env::var_os(name).is_some());
    if named { postgres::connect_options("order-producer").map(Some) } else { Ok(None) }
}

fn is_address(text: &str) -> bool {
    let address = text.trim().rsplit_once(':');
    address.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// A duration on the command line.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("a duration is a number with s or ms behind it: 10s, 500ms")
}

/// Raises the limit on open files as far as allowed: each connection is one, and the usual 1024 is from another age.
pub(super) fn raise_open_files() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}
