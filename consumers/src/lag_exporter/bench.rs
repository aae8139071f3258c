//! `order-consumer lag-exporter bench`: how long a look at many groups takes.

use std::io::Write;

use anyhow::Context;
use clap::Args;
use producers::kafka::KafkaArgs;
use uuid::Uuid;

use super::staged::Staged;
use super::{LagExporterArgs, observe, observer};

/// Make up many groups on a broker of one's own, look at them, and remove them again
#[derive(Args, Clone, Debug)]
pub(super) struct BenchArgs {
    /// Groups to make up.
    #[arg(long, default_value_t = 1_000)]
    group_count: usize,

    /// Partitions that each of them reads.
    #[arg(long, default_value_t = 50)]
    partition_count: i32,

    /// Looks; before each, every position moves.
    #[arg(long, default_value_t = 5)]
    looks: i64,
}

const RECORDS_PER_PARTITION: i64 = 1_000;

/// `false`: a look took longer than the interval.
pub(super) async fn run(
    bench: &BenchArgs,
    args: &LagExporterArgs,
    kafka: &KafkaArgs,
) -> anyhow::Result<bool> {
    let staged = Staged::on(&kafka.client_config("order-consumer-lag-exporter-bench")?)?;
    let name = format!("lag-bench-{}", Uuid::new_v4().simple());
    let groups: Vec<String> =
        (0..bench.group_count).map(|number| format!("{name}-{number}")).collect();
    staged.create(&name, bench.partition_count).await?;
    let looked = look(bench, args, kafka, &staged, &name, &groups).await;
    staged.delete_groups(&groups).await.context("removing the groups")?;
    staged.delete(&name).await.context("removing the topic")?;
    looked
}

async fn look(
    bench: &BenchArgs,
    args: &LagExporterArgs,
    kafka: &KafkaArgs,
    staged: &Staged,
    topic: &str,
    groups: &[String],
) -> anyhow::Result<bool> {
    let now = observe::now_ms();
    for partition in 0..bench.partition_count {
        let times = (0..RECORDS_PER_PARTITION).map(|n| now - 1_000 * (RECORDS_PER_PARTITION - n));
        staged.write(topic, partition, times).await?;
    }
    let mut observer = observer(args, kafka, None)?;
    let mut well = true;
    for number in 0..bench.looks {
        let spread = |group: usize, partition: i32| {
            let group = i64::try_from(group).unwrap_or(0);
            (group * 7 + i64::from(partition) * 3 + number) % RECORDS_PER_PARTITION
        };
        staged.commit(groups, topic, spread, bench.partition_count).await?;
        let refreshed = observer.refresh(observe::now_ms()).await;
        let picture = refreshed.picture.context("the cluster did not answer")?;
        let behind = || {
            let readings = picture.groups.iter().flat_map(|group| &group.topics);
            readings.filter(|reading| &*reading.topic == topic).flat_map(|r| &r.partitions)
        };
        let known = behind().filter(|behind| behind.seconds.is_some()).count();
        writeln!(
            std::io::stdout(),
            "look {}: {:.2} s, {} requests, {} positions, {known} with seconds, {} failures",
            number + 1,
            refreshed.took.as_secs_f64(),
            refreshed.requests,
            behind().count(),
            refreshed.cluster_failures.len(),
        )?;
        well &= refreshed.took.as_millis() <= u128::from(args.interval_ms);
    }
    Ok(well)
}
