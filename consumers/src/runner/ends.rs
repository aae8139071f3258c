//! Where the logs of owned partitions end, and whether they are still the same logs: asked of their brokers once a second, on
//! a thread of its own.
//!
//! The client library learns of an end with the records it fetches, and fetches nothing while a stage has more in hand
//! than it can do: its figure would show too little lag just when there is much.

use std::collections::HashMap;
use std::convert::Infallible;
use std::slice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::callbacks::Callbacks;
use super::progress::Partition;
use super::source::Source;

/// How old a figure of lag may be.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// An answer that comes later is not worth the wait; nor may it hold up the end of a consumer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks until the other end of `stop` is dropped.
pub(crate) fn follow(
    source: &Source,
    consumer: &BaseConsumer<Callbacks>,
    stop: &Receiver<Infallible>,
) {
    let stage = source.stage;
    let (mut answered, mut identified) = (true, true);
    while stop.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let asked = ask_all(consumer, &source.owned.all());
        if let Err(error) = &asked
            && answered
        {
            tracing::warn!(stage, %error, "asking where logs end; what is not heard of is not told");
        }
        answered = asked.is_ok();
        let anew = source.is_made_anew(PATIENCE);
        if let Err(error) = &anew
            && identified
        {
            let error = format!("{error:#}");
            tracing::warn!(stage, error, "asking whether topics are still the same");
        }
        identified = anew.is_ok();
        if anew.unwrap_or(false) {
            tracing::warn!(stage, "a topic was made anew; claiming its partitions again");
            source.signals.rejoin();
            return;
        }
    }
}

/// One request per broker. When not all of them answer, partition by partition, so that one broker that is away does not
/// hide what the others say.
fn ask_all(consumer: &BaseConsumer<Callbacks>, partitions: &[Arc<Partition>]) -> KafkaResult<()> {
    let asked = ask(consumer, partitions, PATIENCE);
    if asked.is_err() {
        let share = PATIENCE / u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        for partition in partitions {
            ask(consumer, slice::from_ref(partition), share).ok();
        }
    }
    asked
}

/// With read_committed a log ends, for us, before the first open transaction.
fn ask(
    consumer: &BaseConsumer<Callbacks>,
    partitions: &[Arc<Partition>],
    patience: Duration,
) -> KafkaResult<()> {
    if partitions.is_empty() {
        return Ok(());
    }
    let before: Vec<i64> = partitions.iter().map(|partition| partition.next_offset()).collect();
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        wanted.add_partition_offset(&partition.source.topic, partition.number(), Offset::End)?;
    }
    let found = consumer.offsets_for_times(wanted, patience)?;
    let ends: HashMap<_, _> = found
        .elements()
        .iter()
        .filter_map(|found| match found.offset() {
            Offset::Offset(end) => Some(((found.topic().to_owned(), found.partition()), end)),
            _ => None,
        })
        .collect();
    let now = Instant::now();
    for (partition, next_offset) in partitions.iter().zip(before) {
        if let Some(end) = ends.get(&(partition.source.topic.clone(), partition.number())) {
            partition.told_end(*end, next_offset, now);
        }
    }
    Ok(())
}
