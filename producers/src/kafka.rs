//! How every process connects to Kafka.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rdkafka::ClientConfig;
use schemas::TopicPrefix;

/// How to reach Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Brokers to start from, as host:port,…
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092", global = true)]
    pub kafka_brokers: String,

    /// Put in front of every topic and consumer group, so that pipelines can share a broker.
    #[arg(
        long,
        env = "TOPIC_PREFIX",
        default_value = "",
        global = true,
        hide_default_value = true
    )]
    pub topic_prefix: TopicPrefix,

    /// File of librdkafka properties, one key=value per line: TLS, SASL and their secrets belong here.
    #[arg(long, env = "KAFKA_CONFIG", value_name = "FILE", global = true)]
    pub kafka_config: Option<PathBuf>,
}

impl KafkaArgs {
    /// A client configuration with the connection settings of these arguments.
    pub fn client_config(&self, client_id: &str) -> anyhow::Result<ClientConfig> {
        let mut config = ClientConfig::new();
        if let Some(path) = &self.kafka_config {
            for (key, value) in read_properties(path)? {
                config.set(key, value);
            }
        }
        config
            .set("bootstrap.servers", &self.kafka_brokers)
            .set("client.id", client_id)
            // A mistyped topic must be an error, not a new topic with one partition.
            .set("allow.auto.create.topics", "false")
            // A broker that comes back is seen within a second; librdkafka's default waits up to ten.
            .set("reconnect.backoff.max.ms", "1000");
        Ok(config)
    }
}

fn read_properties(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the Kafka properties in {}", path.display()))?;
    let mut properties = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself is not shown: it may hold a secret.
        let Some((key, value)) = line.split_once('=') else {
            bail!("{}:{}: not key=value", path.display(), number + 1);
        };
        properties.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(properties)
}

/// Forwards a line that librdkafka logs. Its own levels are syslog's; what it calls an error it usually copes with.
pub fn log(level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
    use rdkafka::config::RDKafkaLogLevel as Level;
    match level {
        Level::Emerg | Level::Alert | Level::Critical => {
            tracing::error!(facility, message, "librdkafka")
        }
        Level::Error | Level::Warning => tracing::warn!(facility, message, "librdkafka"),
        Level::Notice | Level::Info => tracing::debug!(facility, message, "librdkafka"),
        Level::Debug => tracing::trace!(facility, message, "librdkafka"),
    }
}
