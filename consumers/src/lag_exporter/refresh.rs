//! One refresh: asks the cluster, and Postgres when it is known, in the order that keeps numbers true, and draws the picture.
//!
//! The order: topics, positions (committed and `stage_progress`), ends of logs, and only then the records at positions. A
//! position read before the end it is compared with cannot make a lag negative.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::TopicPrefix;
use uuid::Uuid;

use super::arithmetic::{Bounds, IN_ANOTHER_LOG, Waiting, age_seconds, drain_seconds};
use super::bounds::{self, Place};
use super::filter::Filter;
use super::groups::{self, Group, Offsets};
use super::history::{History, Reader};
use super::picture::{
    Behind, GroupPicture, GroupStatus, Log, Picture, Reading, StagePosition, Topic,
};
use super::progress::{Progress, Stages, Standing};
use super::times::{Time, Times, Wanted};
use crate::broker::cluster::{Cluster, TopicInfo};
use crate::broker::topic_ids::is_another;

/// What lasts from one refresh to the next.
pub(super) struct Observer {
    pub(super) cluster: Cluster,
    pub(super) progress: Option<Progress>,
    pub(super) prefix: TopicPrefix,
    pub(super) filter: Filter,
    /// Most pairs of group and partition; whole groups beyond are left out.
    pub(super) most_positions: usize,
    pub(super) times: Times,
    pub(super) history: History,
    /// The monotonic clock's zero.
    pub(super) started: Instant,
}

/// What a refresh came to.
pub(super) struct Refreshed {
    /// `None`: the cluster could not be asked at all.
    pub(super) picture: Option<Picture>,
    pub(super) left_out: usize,
    pub(super) requests: u64,
    pub(super) took: Duration,
    /// Sentences for the log.
    pub(super) cluster_failures: Vec<String>,
    pub(super) database_failure: Option<String>,
}

/// A group's positions: what counts, and what Kafka has.
struct Positions {
    status: Option<GroupStatus>,
    positions: Offsets,
    committed: Offsets,
}

/// What a refresh has found out so far.
struct Found<'a> {
    now_ms: i64,
    /// Seconds on the clock that only goes forward.
    now: f64,
    ids: BTreeMap<Arc<str>, Uuid>,
    topics: &'a [TopicInfo],
    bounds: BTreeMap<Place, Bounds>,
}

impl Observer {
    /// Looks at everything once. `now_ms` is the time that ages refer to.
    pub(super) async fn refresh(&mut self, now_ms: i64) -> Refreshed {
        let begun = Instant::now();
        let mut refreshed = Refreshed {
            picture: None,
            left_out: 0,
            requests: 0,
            took: Duration::ZERO,
            cluster_failures: Vec::new(),
            database_failure: None,
        };
        match self.cluster.topics().await {
            Ok(topics) => {
                refreshed.picture = Some(self.look(now_ms, topics, &mut refreshed).await);
            }
            Err(error) => refreshed.cluster_failures.push(format!("{error:#}")),
        }
        refreshed.cluster_failures.extend(self.cluster.take_failures());
        refreshed.requests = self.cluster.take_requests();
        refreshed.took = begun.elapsed();
        refreshed
    }

    async fn look(
        &mut self,
        now_ms: i64,
        mut topics: Vec<TopicInfo>,
        refreshed: &mut Refreshed,
    ) -> Picture {
        topics.retain(|topic| !topic.internal && self.filter.topic(&topic.name));
        let (groups, unnamed) = groups::read(&mut self.cluster, &self.filter).await;
        let stages = match &mut self.progress {
            None => Stages::new(),
            Some(progress) => progress.read().await.unwrap_or_else(|error| {
                refreshed.database_failure = Some(format!("{error:#}"));
                Stages::new()
            }),
        };
        let found = Found {
            now_ms,
            now: self.started.elapsed().as_secs_f64(),
            ids: topics.iter().map(|topic| (Arc::clone(&topic.name), topic.id)).collect(),
            topics: &topics,
            bounds: bounds::read(&mut self.cluster, &topics).await,
        };
        self.times.ended(
            now_ms,
            found.bounds.iter().filter_map(|(place, bounds)| {
                Some(((*found.ids.get(&place.0)?, place.clone()), bounds.end))
            }),
        );
        let mut readers = self.readers(groups, &stages, &found.ids);
        let stages = self.stage_positions(stages, &readers, &found);
        refreshed.left_out = unnamed + self.leave_out(&mut readers);
        let times = self.times.read(&mut self.cluster, &found.wanted(&readers)).await;
        let groups = readers
            .into_iter()
            .map(|(name, group)| self.draw(&found, &times, name, group))
            .collect();
        self.history.forget_others(found.now);
        Picture {
            taken_at_ms: now_ms,
            brokers: self.cluster.broker_count(),
            topics: found.draw_topics(),
            groups,
            stages,
        }
    }

    /// Groups of the cluster, with the truth of `stage_progress` where that is known.
    fn readers(
        &self,
        groups: Vec<Group>,
        stages: &Stages,
        ids: &BTreeMap<Arc<str>, Uuid>,
    ) -> BTreeMap<Arc<str>, Positions> {
        let mut readers: BTreeMap<Arc<str>, Positions> = BTreeMap::new();
        for Group { name, kind, state, members, committed } in groups {
            let status = Some(GroupStatus { kind, state, members });
            readers.insert(name, Positions { status, positions: committed.clone(), committed });
        }
        for (stage, standings) in stages {
            let group: Arc<str> = self.prefix.group(stage).into();
            if !self.filter.group(&group) {
                continue;
            }
            let reader = readers.entry(group).or_insert_with(|| Positions {
                status: None,
                positions: Offsets::new(),
                committed: Offsets::new(),
            });
            let standings = standings.iter().filter(|((topic, _), _)| self.filter.topic(topic));
            reader.positions.extend(standings.map(|(place, standing)| {
                let anew = is_another(standing.topic_id, ids.get(&place.0).copied());
                (place.clone(), if anew { IN_ANOTHER_LOG } else { standing.next_offset })
            }));
        }
        readers
    }

    fn stage_positions(
        &self,
        stages: Stages,
        readers: &BTreeMap<Arc<str>, Positions>,
        found: &Found<'_>,
    ) -> Vec<StagePosition> {
        let mut positions = Vec::new();
        for (stage, standings) in stages {
            let reader = readers.get(self.prefix.group(&stage).as_str());
            for ((topic, partition), Standing { next_offset: offset, .. }) in standings {
                if !found.ids.contains_key(&topic) {
                    continue;
                }
                let place = (topic, partition);
                let committed = reader.and_then(|reader| reader.committed.get(&place)).copied();
                positions.push(StagePosition {
                    stage: Arc::clone(&stage),
                    topic: place.0,
                    partition,
                    offset,
                    ahead: committed.map(|committed| offset - committed),
                });
            }
        }
        positions
    }

    /// Drops the groups that are too many; how many those were.
    fn leave_out(&self, readers: &mut BTreeMap<Arc<str>, Positions>) -> usize {
        let all = readers.len();
        let mut room = self.most_positions;
        readers.retain(|_, reader| {
            let fits = reader.positions.len() <= room;
            room = room.saturating_sub(reader.positions.len());
            fits
        });
        all - readers.len()
    }

    fn draw(
        &mut self,
        found: &Found<'_>,
        times: &BTreeMap<(Place, i64), Time>,
        name: Arc<str>,
        group: Positions,
    ) -> GroupPicture {
        let mut topics: Vec<Reading> = Vec::new();
        for (place, position) in &group.positions {
            let Some(id) = found.ids.get(&place.0) else { continue };
            let Some(bounds) = found.bounds.get(place) else {
                // Its leader does not answer: what waits there is not known, and so no sum over the topic is.
                reading_of(&mut topics, &place.0).unknown += 1;
                continue;
            };
            let waiting = Waiting::behind(*position, *bounds);
            let time = match waiting.lag {
                0 => Time::NothingWaits,
                _ => *times.get(&(place.clone(), waiting.first)).unwrap_or(&Time::Unknown),
            };
            let (lag, seconds) = match time {
                Time::NothingWaits => (0, Some(0.0)),
                Time::At(ms) => (waiting.lag, Some(age_seconds(found.now_ms, ms))),
                Time::Unknown => (waiting.lag, None),
            };
            let reader: Reader = (Arc::clone(&name), Arc::clone(&place.0), *id);
            let stuck = self.history.is_stuck(found.now, &reader, place.1, *position, lag);
            let behind = Behind {
                partition: place.1,
                committed: group.committed.get(place).copied(),
                lag,
                seconds,
                lost: waiting.lost,
                margin: waiting.margin,
                stuck,
            };
            reading_of(&mut topics, &place.0).partitions.push(behind);
        }
        for reading in &mut topics {
            let id = found.ids.get(&reading.topic).copied().unwrap_or_default();
            let reader: Reader = (Arc::clone(&name), Arc::clone(&reading.topic), id);
            let Some(lag) = reading.lag_sum() else { continue };
            let partitions = reading.partitions.len();
            reading.growth = self.history.growth(found.now, &reader, lag, partitions);
            reading.drain_seconds = drain_seconds(lag, reading.growth);
        }
        GroupPicture { name, status: group.status, topics }
    }
}

/// The last of `topics` when it is that of `topic`, or a new one: positions come by topic.
fn reading_of<'a>(topics: &'a mut Vec<Reading>, topic: &Arc<str>) -> &'a mut Reading {
    if topics.last().is_none_or(|last| last.topic != *topic) {
        topics.push(Reading { topic: Arc::clone(topic), ..Reading::default() });
    }
    topics.last_mut().expect("pushed above when there was none")
}

impl Found<'_> {
    /// The records whose times are needed.
    fn wanted(&self, readers: &BTreeMap<Arc<str>, Positions>) -> BTreeSet<Wanted> {
        let mut leaders: BTreeMap<(&str, i32), i32> = BTreeMap::new();
        for topic in self.topics {
            for leader in &topic.partitions {
                leaders.extend(leader.broker.map(|id| ((&*topic.name, leader.partition), id)));
            }
        }
        let wanted = |place: &Place, position: &i64| {
            let bounds = self.bounds.get(place)?;
            let waiting = Waiting::behind(*position, *bounds);
            if waiting.lag == 0 {
                return None;
            }
            Some(Wanted {
                place: place.clone(),
                topic_id: *self.ids.get(&place.0)?,
                leader: *leaders.get(&(&*place.0, place.1))?,
                first: waiting.first,
                end: bounds.end,
            })
        };
        let positions = readers.values().flat_map(|reader| &reader.positions);
        positions.filter_map(|(place, position)| wanted(place, position)).collect()
    }

    fn draw_topics(&self) -> Vec<Topic> {
        let draw = |topic: &TopicInfo| {
            let logs = topic.partitions.iter().filter_map(|leader| {
                let Bounds { start, end } =
                    *self.bounds.get(&(Arc::clone(&topic.name), leader.partition))?;
                Some(Log { partition: leader.partition, start, end })
            });
            Topic { name: Arc::clone(&topic.name), partitions: logs.collect() }
        };
        self.topics.iter().map(draw).collect()
    }
}
