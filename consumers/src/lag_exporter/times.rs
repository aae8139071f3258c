//! When the first waiting record behind a position was written.
//!
//! That one record is read, once: what a position said stays known until the position moves. Requests and bytes are
//! bounded; where they do not suffice, or the record is gone, the time is interpolated between what is known around it:
//! records read for other groups, and ends of the log at earlier refreshes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::arithmetic::between;
use super::batches::{Aborted, Found, first_record};
use super::bounds::Place;
use crate::broker::cluster::{Broker, Cluster};
use crate::broker::wire::error_of;

/// Positions of one partition that are read per refresh; those between are interpolated.
const READ_PER_PARTITION: usize = 16;
/// Ends of one log that are remembered.
const ENDS_REMEMBERED: usize = 16;
/// Records may be hidden behind markers, aborted transactions and large batches, so one read may not suffice.
const ROUNDS: usize = 6;
/// Bytes of records that one broker sends per refresh, give or take one answer.
const BYTES_PER_REFRESH: usize = 64 << 20;
/// How much is asked for: first little of many partitions, then more of those whose next batch is larger.
const SIZES: [Size; 3] = [
    Size { partitions: 200, partition_bytes: 16 << 10, bytes: 4 << 20 },
    Size { partitions: 16, partition_bytes: 1 << 20, bytes: 8 << 20 },
    // A broker sends at least one batch, whatever its size, but only one.
    Size { partitions: 1, partition_bytes: 1 << 20, bytes: 1 << 20 },
];

#[derive(Clone, Copy)]
struct Size {
    partitions: usize,
    partition_bytes: i32,
    bytes: i32,
}

/// A position with something behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) place: Place,
    pub(super) topic_id: Uuid,
    pub(super) leader: i32,
    /// Where the first waiting record may be.
    pub(super) first: i64,
    pub(super) end: i64,
}

/// What is known of the first waiting record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    At(i64),
    /// There are only markers, aborted records and gaps behind the position.
    NothingWaits,
    Unknown,
}

/// A topic made anew has another id, and nothing that was known of its former self.
type Log = (Uuid, Place);

/// What is known of positions and ends, from refresh to refresh.
#[derive(Default)]
pub(super) struct Times {
    seen: BTreeMap<(Log, i64), Seen>,
    ends: BTreeMap<Log, Vec<(i64, i64)>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    found: Found,
    /// Holds for this refresh only: an open transaction may come to nothing yet.
    provisional: bool,
}

struct Search {
    key: (Log, i64),
    next: i64,
    end: i64,
    size: usize,
    uncommitted: bool,
    done: bool,
}

impl Times {
    /// Takes note that the log ends at `end` now; `topics` are all there are.
    pub(super) fn ended(&mut self, now_ms: i64, ends: impl Iterator<Item = (Log, i64)>) {
        let mut known = std::mem::take(&mut self.ends);
        for (log, end) in ends {
            let mut points = known.remove(&log).unwrap_or_default();
            if points.last().is_some_and(|(last, _)| *last > end) {
                points.clear(); // The broker lost its tail.
            }
            if points.last().is_some_and(|(last, _)| *last == end) {
                points.pop(); // Whatever comes next was written after now.
            }
            if points.len() >= ENDS_REMEMBERED {
                let mut place = 0;
                points.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
            }
            points.push((end, now_ms));
            self.ends.insert(log, points);
        }
    }

    /// What is known about each of `wanted`, after asking for what is not.
    pub(super) async fn read(
        &mut self,
        cluster: &mut Cluster,
        wanted: &BTreeSet<Wanted>,
    ) -> BTreeMap<(Place, i64), Time> {
        let keys: BTreeSet<(Log, i64)> = wanted.iter().map(Wanted::key).collect();
        self.seen.retain(|key, seen| !seen.provisional && keys.contains(key));
        let searches = self.searches(wanted);
        let searched = cluster
            .at_once(searches, async |broker, mut searches| search(broker, &mut searches).await);
        for found in searched.await {
            self.seen.extend(found);
        }
        self.answers(wanted)
    }

    /// By leader, what has to be asked.
    fn searches(&self, wanted: &BTreeSet<Wanted>) -> BTreeMap<i32, Vec<Search>> {
        let mut by_log: BTreeMap<Log, Vec<(i32, Search)>> = BTreeMap::new();
        for wanted in wanted {
            let key = wanted.key();
            let next = match self.seen.get(&key).map(|seen| seen.found) {
                Some(Found::Record { .. }) => continue,
                Some(Found::Nothing { next }) if next >= wanted.end => continue,
                Some(Found::Nothing { next }) => next,
                None => wanted.first,
            };
            let log = key.0.clone();
            let search =
                Search { key, next, end: wanted.end, size: 0, uncommitted: false, done: false };
            by_log.entry(log).or_default().push((wanted.leader, search));
        }
        let mut by_leader: BTreeMap<i32, Vec<Search>> = BTreeMap::new();
        for searches in by_log.into_values() {
            let count = searches.len();
            for (place, (leader, search)) in searches.into_iter().enumerate() {
                if is_chosen(place, count) {
                    by_leader.entry(leader).or_default().push(search);
                }
            }
        }
        by_leader
    }

    fn answers(&self, wanted: &BTreeSet<Wanted>) -> BTreeMap<(Place, i64), Time> {
        let mut points = self.ends.clone();
        for ((log, _), seen) in &self.seen {
            if let Found::Record { offset, time_ms } = seen.found {
                points.entry(log.clone()).or_default().push((offset, time_ms));
            }
        }
        for points in points.values_mut() {
            points.sort_unstable();
        }
        let answer = |wanted: &Wanted| {
            let key = wanted.key();
            match self.seen.get(&key).map(|seen| seen.found) {
                Some(Found::Record { time_ms, .. }) => Time::At(time_ms),
                Some(Found::Nothing { next }) if next >= wanted.end => Time::NothingWaits,
                _ => points
                    .get(&key.0)
                    .and_then(|points| between(points, wanted.first))
                    .map_or(Time::Unknown, Time::At),
            }
        };
        wanted.iter().map(|w| ((w.place.clone(), w.first), answer(w))).collect()
    }
}

impl Wanted {
    fn key(&self) -> (Log, i64) {
        ((self.topic_id, self.place.clone()), self.first)
    }
}

/// Whether the `place`-th of `count` is among those that are read: the outermost, and evenly many between.
fn is_chosen(place: usize, count: usize) -> bool {
    if count <= READ_PER_PARTITION {
        return true;
    }
    let step = |place: usize| place * (READ_PER_PARTITION - 1) / (count - 1);
    place == 0 || step(place) != step(place - 1)
}

async fn search(broker: &mut Broker, searches: &mut [Search]) -> Vec<((Log, i64), Seen)> {
    let mut found = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut requests = requests(searches);
        // Small questions first: they answer most.
        requests.sort_by_key(|(size, ..)| *size);
        if requests.is_empty() {
            break;
        }
        for (size, uncommitted, members) in requests {
            if bytes >= BYTES_PER_REFRESH {
                return found;
            }
            let Some(read) =
                ask(broker, searches, SIZES[size], uncommitted, &members, &mut found).await
            else {
                return found;
            };
            bytes += read;
        }
    }
    found
}

/// Packs what is to be asked: a request names each partition once, and has one size and one isolation.
fn requests(searches: &[Search]) -> Vec<(usize, bool, Vec<usize>)> {
    let mut open: BTreeMap<(usize, bool), Vec<Vec<usize>>> = BTreeMap::new();
    let mut nth: BTreeMap<(usize, bool, &Place), usize> = BTreeMap::new();
    for (place, search) in searches.iter().enumerate().filter(|(_, search)| !search.done) {
        let waves = open.entry((search.size, search.uncommitted)).or_default();
        let wave = nth.entry((search.size, search.uncommitted, &search.key.0.1)).or_default();
        if waves.len() <= *wave {
            waves.push(Vec::new());
        }
        waves[*wave].push(place);
        *wave += 1;
    }
    open.into_iter()
        .flat_map(|((size, uncommitted), waves)| {
            waves.into_iter().flat_map(move |wave| {
                let chunks = wave.chunks(SIZES[size].partitions).map(<[usize]>::to_vec);
                chunks.map(|chunk| (size, uncommitted, chunk)).collect::<Vec<_>>()
            })
        })
        .collect()
}

/// One request. Returns the bytes it brought; `None` when the broker does not answer any more.
async fn ask(
    broker: &mut Broker,
    searches: &mut [Search],
    size: Size,
    uncommitted: bool,
    members: &[usize],
    found: &mut Vec<((Log, i64), Seen)>,
) -> Option<usize> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut asked: BTreeMap<(Arc<str>, i32), usize> = BTreeMap::new();
    for member in members {
        let (topic, number) = &searches[*member].key.0.1;
        asked.insert((Arc::clone(topic), *number), *member);
        let partition = FetchPartition::default()
            .with_partition(*number)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(searches[*member].next)
            .with_partition_max_bytes(size.partition_bytes);
        match topics.last_mut().filter(|last| last.topic.0.as_str() == &**topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(
                FetchTopic::default()
                    .with_topic(TopicName(StrBytes::from_string(topic.to_string())))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(size.bytes)
        .with_isolation_level(i8::from(!uncommitted))
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics);
    let answer = broker.call(&request).await?;
    if let Some(error) = error_of(answer.error_code) {
        broker.note(format!("broker {} sent no records: {error}", broker.id));
        return None;
    }
    let mut bytes = 0;
    for topic in answer.responses {
        let name: Arc<str> = topic.topic.0.as_str().into();
        for partition in topic.partitions {
            let place = (Arc::clone(&name), partition.partition_index);
            let Some(search) = asked.get(&place).map(|member| &mut searches[*member]) else {
                continue;
            };
            if let Some(error) = error_of(partition.error_code) {
                search.done = true;
                broker.note(format!("{} [{}] sent no records: {error}", place.0, place.1));
                continue;
            }
            let log = partition.records.unwrap_or_default();
            bytes += log.len();
            let aborted: Vec<Aborted> = partition
                .aborted_transactions
                .unwrap_or_default()
                .iter()
                .map(|aborted| Aborted {
                    producer_id: aborted.producer_id.0,
                    first_offset: aborted.first_offset,
                })
                .collect();
            let seen = first_record(&log, search.next, &aborted);
            search.learn(seen, partition.last_stable_offset);
            found.push((search.key.clone(), Seen { found: seen, provisional: uncommitted }));
        }
    }
    Some(bytes)
}

impl Search {
    fn learn(&mut self, found: Found, last_stable: i64) {
        let Found::Nothing { next } = found else {
            self.done = true;
            return;
        };
        if next >= self.end {
            self.done = true;
        } else if !self.uncommitted && last_stable >= 0 && next >= last_stable {
            // What waits belongs to a transaction that is still open.
            self.uncommitted = true;
        } else if next == self.next {
            // The next batch is larger than what was asked for, or the answer was full.
            self.done = self.size + 1 == SIZES.len();
            self.size = (self.size + 1).min(SIZES.len() - 1);
        }
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        (Uuid::nil(), ("t".into(), 0))
    }

    fn wanted(first: i64, end: i64) -> Wanted {
        let (topic_id, place) = log();
        Wanted { place, topic_id, leader: 1, first, end }
    }

    fn time_of(times: &Times, wanted: &Wanted) -> Time {
        times.answers(&BTreeSet::from([wanted.clone()]))[&(wanted.place.clone(), wanted.first)]
    }

    #[test]
    fn many_positions_of_a_partition_cost_a_bounded_number_of_reads() {
        for count in [1, 15, 16, 17, 100, 1_000] {
            let chosen: Vec<usize> = (0..count).filter(|place| is_chosen(*place, count)).collect();
            assert!(chosen.len() <= READ_PER_PARTITION, "{count}: {chosen:?}");
            assert_eq!((chosen[0], chosen[chosen.len() - 1]), (0, count - 1));
        }
    }

    #[test]
    fn without_the_record_the_ends_of_earlier_refreshes_tell() {
        let mut times = Times::default();
        times.ended(1_000, [(log(), 100)].into_iter());
        times.ended(2_000, [(log(), 200)].into_iter());

        assert_eq!(time_of(&times, &wanted(150, 200)), Time::At(1_500));
        assert_eq!(time_of(&times, &wanted(50, 200)), Time::Unknown);
    }

    #[test]
    fn while_nothing_is_written_the_end_stays_young() {
        let mut times = Times::default();
        times.ended(1_000, [(log(), 100)].into_iter());
        times.ended(900_000, [(log(), 100)].into_iter());
        times.ended(901_000, [(log(), 200)].into_iter());

        assert_eq!(time_of(&times, &wanted(100, 200)), Time::At(900_000));
    }

    #[test]
    fn a_topic_made_anew_has_no_past() {
        let mut times = Times::default();
        times.ended(1_000, [(log(), 100)].into_iter());
        let anew: Log = (Uuid::max(), log().1);
        times.ended(2_000, [(anew, 200)].into_iter());

        let wanted = Wanted { topic_id: Uuid::max(), ..wanted(150, 200) };
        assert_eq!(time_of(&times, &wanted), Time::Unknown);
    }

    #[test]
    fn a_log_that_lost_its_tail_forgets_its_ends() {
        let mut times = Times::default();
        times.ended(1_000, [(log(), 100)].into_iter());
        times.ended(2_000, [(log(), 200)].into_iter());
        times.ended(3_000, [(log(), 120)].into_iter());

        assert_eq!(times.ends[&log()], [(120, 3_000)]);
    }

    #[test]
    fn a_full_memory_of_ends_keeps_its_span() {
        let mut times = Times::default();
        for refresh in 0..100 {
            times.ended(refresh, [(log(), refresh)].into_iter());
        }

        let ends = &times.ends[&log()];
        assert!(ends.len() <= ENDS_REMEMBERED, "{ends:?}");
        assert_eq!((ends[0], ends[ends.len() - 1]), ((0, 0), (99, 99)));
    }

    #[test]
    fn what_hides_behind_a_large_batch_is_asked_for_again_and_not_for_ever() {
        let key = wanted(5, 10).key();
        let mut search = Search { key, next: 5, end: 10, size: 0, uncommitted: false, done: false };

        search.learn(Found::Nothing { next: 5 }, 10);
        assert!(!search.done && search.size == 1);
        search.learn(Found::Nothing { next: 5 }, 10);
        search.learn(Found::Nothing { next: 5 }, 10);
        assert!(search.done);
    }

    #[test]
    fn what_waits_in_an_open_transaction_is_looked_at_as_it_is() {
        let key = wanted(5, 10).key();
        let mut search = Search { key, next: 5, end: 10, size: 0, uncommitted: false, done: false };

        search.learn(Found::Nothing { next: 7 }, 7);

        assert!(search.uncommitted && !search.done && search.next == 7);
    }
}
