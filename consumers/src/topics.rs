//! `order-consumer topics`: creates the topics that are missing. Existing ones are left as they are, whatever their
//! settings: more partitions on a keyed topic would break the order of events.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use producers::kafka::KafkaArgs;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use schemas::Topic;

/// How topics are made.
#[derive(Args, Clone, Debug)]
pub struct TopicsArgs {
    /// Partitions of each topic: the most members one stage can have. All topics need the same number.
    #[arg(long, env = "TOPIC_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub partitions: i32,

    /// Copies of each record. 3 with --min-in-sync 2 survives the loss of a broker; 1 is for one machine.
    #[arg(long, env = "TOPIC_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    pub replication: i32,

    /// Copies that must exist before a write counts.
    #[arg(long, env = "TOPIC_MIN_IN_SYNC", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    pub min_in_sync: i32,

    /// Days that records are kept. A stage that is down for longer loses some, and says so.
    #[arg(long, env = "TOPIC_RETENTION_DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub retention_days: u32,
}

/// Creates what is missing; answers the names of the topics it created.
pub async fn run(args: &TopicsArgs, kafka: &KafkaArgs) -> anyhow::Result<Vec<String>> {
    if args.min_in_sync > args.replication {
        bail!(
            "--min-in-sync {} cannot be more than --replication {}",
            args.min_in_sync,
            args.replication
        );
    }
    let admin: AdminClient<DefaultClientContext> =
        AdminClient::from_config(&kafka.client_config("order-consumer-topics")?)
            .context("creating the Kafka admin client")?;
    let names: Vec<String> =
        Topic::ALL.iter().map(|topic| kafka.topic_prefix.topic(*topic)).collect();
    let min_in_sync = args.min_in_sync.to_string();
    let retention_ms = (u64::from(args.retention_days) * 24 * 60 * 60 * 1000).to_string();
    let wanted: Vec<NewTopic<'_>> = Topic::ALL
        .iter()
        .zip(&names)
        .map(|(topic, name)| {
            let new =
                NewTopic::new(name, args.partitions, TopicReplication::Fixed(args.replication))
                    .set("min.insync.replicas", &min_in_sync)
                    .set("retention.ms", &retention_ms)
                    // What the producer compressed stays as it is.
                    .set("compression.type", "producer")
                    // Retention must not follow the clocks of producers.
                    .set("message.timestamp.type", "LogAppendTime");
            match topic {
                // A record of the largest size that other topics take, and more headers.
                Topic::DeadLetters => new.set("max.message.bytes", "2097152"),
                _ => new,
            }
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(Duration::from_secs(30)))
        .request_timeout(Some(Duration::from_secs(30)));
    let mut created = Vec::new();
    for result in admin
        .create_topics(&wanted, &options)
        .await
        .context("asking the brokers to create topics")?
    {
        match result {
            Ok(name) => created.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => bail!("the brokers did not create the topic {name}: {error}"),
        }
    }
    Ok(created)
}
