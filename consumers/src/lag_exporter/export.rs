//! Turns the newest picture into series when scraped. What is not in the picture has no series, and a picture that is too
//! old is no picture.

use std::fmt::{Error, Result};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::picture::{Behind, GroupPicture, Picture, Reading};

/// The picture that is exported; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Exported {
    stale_after: Duration,
    state: Arc<Mutex<Option<Shown>>>,
}

#[derive(Clone, Debug)]
struct Shown {
    since: Instant,
    picture: Arc<Picture>,
}

impl Exported {
    /// Nothing yet; a picture older than `stale_after` is not shown.
    pub(super) fn new(stale_after: Duration) -> Self {
        Self { stale_after, state: Arc::default() }
    }

    pub(super) fn show(&self, picture: Picture) {
        *self.lock() = Some(Shown { since: Instant::now(), picture: Arc::new(picture) });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Shown>> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn newest(&self) -> Option<(bool, Arc<Picture>)> {
        let state = self.lock();
        let Shown { since, picture } = state.as_ref()?;
        Some((since.elapsed() <= self.stale_after, Arc::clone(picture)))
    }
}

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let Some((fresh, picture)) = self.newest() else { return Ok(()) };
        let mut out = Families { encoder: &mut encoder };
        out.scalar(
            "kafka_lag_exporter_last_update_timestamp_seconds",
            "When the cluster was looked at last with an answer; everything else here is as of then",
            picture.taken_at_ms as f64 / 1000.0,
        )?;
        if !fresh {
            return Ok(());
        }
        out.cluster(&picture)?;
        out.partitions(&picture)?;
        out.topics_of_groups(&picture)?;
        out.groups(&picture)?;
        out.stages(&picture)
    }
}

struct Families<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

struct Series<'a> {
    family: MetricEncoder<'a>,
}

impl Series<'_> {
    fn put(&mut self, labels: &[(&str, &str)], value: f64) -> Result {
        if !value.is_finite() {
            return Err(Error); // A number that is none is a mistake of ours; no test lets it pass.
        }
        ConstGauge::new(value).encode(self.family.encode_family(&labels)?)
    }

    fn maybe(&mut self, labels: &[(&str, &str)], value: Option<f64>) -> Result {
        value.map_or(Ok(()), |value| self.put(labels, value))
    }
}

impl Families<'_, '_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        fill: impl FnOnce(&mut Series<'_>) -> Result,
    ) -> Result {
        let family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        fill(&mut Series { family })
    }

    fn scalar(&mut self, name: &str, help: &str, value: f64) -> Result {
        let encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn cluster(&mut self, picture: &Picture) -> Result {
        self.scalar("kafka_brokers", "Brokers in the cluster", picture.brokers as f64)?;
        self.family(
            "kafka_topic_partitions",
            "Partitions of the topic whose log is known",
            |series| {
                picture.topics.iter().try_for_each(|topic| {
                    series.put(&[("topic", &topic.name)], topic.partitions.len() as f64)
                })
            },
        )?;
        let mut bounds = |name, help, value: fn(&super::picture::Log) -> i64| {
            self.family(name, help, |series| {
                for topic in &picture.topics {
                    for log in &topic.partitions {
                        let number = log.partition.to_string();
                        let labels = [("topic", &*topic.name), ("partition", &number)];
                        series.put(&labels, value(log) as f64)?;
                    }
                }
                Ok(())
            })
        };
        bounds("kafka_topic_partition_current_offset", "Offset after the last record", |log| {
            log.end
        })?;
        bounds("kafka_topic_partition_oldest_offset", "First offset that retention left", |log| {
            log.start
        })
    }

    fn partitions(&mut self, picture: &Picture) -> Result {
        let mut each = |name, help, value: fn(&Behind) -> Option<f64>| {
            self.family(name, help, |series| {
                for (group, reading) in readings(picture) {
                    for behind in &reading.partitions {
                        let number = behind.partition.to_string();
                        let labels = [
                            ("consumergroup", &*group.name),
                            ("topic", &*reading.topic),
                            ("partition", number.as_str()),
                        ];
                        series.maybe(&labels, value(behind))?;
                    }
                }
                Ok(())
            })
        };
        each(
            "kafka_consumergroup_lag",
            "Records after the group's position, per partition; of this pipeline's stages the position in Postgres counts",
            |behind| Some(behind.lag as f64),
        )?;
        each(
            "kafka_consumergroup_lag_seconds",
            "Age of the first record after the group's position; 0 when drained, absent when not known",
            |behind| behind.seconds,
        )?;
        each(
            "kafka_consumergroup_current_offset",
            "Offset the group has committed in Kafka",
            |behind| behind.committed.map(|offset| offset as f64),
        )?;
        each(
            "kafka_consumergroup_partition_stuck",
            "1 where records wait and the position has not moved for long; absent elsewhere",
            |behind| behind.stuck.then_some(1.0),
        )
    }

    fn topics_of_groups(&mut self, picture: &Picture) -> Result {
        let mut each = |name, help, value: fn(&Reading) -> Option<f64>| {
            self.family(name, help, |series| {
                readings(picture).try_for_each(|(group, reading)| {
                    let labels = [("consumergroup", &*group.name), ("topic", &*reading.topic)];
                    series.maybe(&labels, value(reading))
                })
            })
        };
        each(
            "kafka_consumergroup_lag_sum",
            "Records after the group's positions in the topic; absent unless known of every partition",
            |r| r.lag_sum().map(|lag| lag as f64),
        )?;
        each(
            "kafka_consumergroup_lag_max",
            "The same of the partition that is furthest behind",
            |r| r.lag_max().map(|lag| lag as f64),
        )?;
        each(
            "kafka_consumergroup_lag_seconds_max",
            "Age of the oldest record that waits for the group in the topic, of those that are known",
            Reading::seconds_max,
        )?;
        each(
            "kafka_consumergroup_lag_seconds_sum",
            "Sum over partitions of the age of the first record that waits; absent unless known of each",
            Reading::seconds_sum,
        )?;
        each(
            "kafka_consumergroup_current_offset_sum",
            "Sum over partitions of the offset the group has committed in Kafka",
            |r| r.committed_sum().map(|sum| sum as f64),
        )?;
        each(
            "kafka_consumergroup_lost_records",
            "Records that retention removed between the group's positions and what is left",
            |r| r.lost().map(|lost| lost as f64),
        )?;
        each(
            "kafka_consumergroup_retention_margin_records",
            "Records between the start of the log and the position that retention reaches first; absent when nothing waits",
            |r| r.margin().map(|margin| margin as f64),
        )?;
        each(
            "kafka_consumergroup_lag_growth",
            "Records per second by which the lag grows (negative: shrinks); absent until two refreshes tell",
            |r| r.growth,
        )?;
        each(
            "kafka_consumergroup_drain_seconds",
            "Seconds until nothing waits if it goes on like this; absent while the lag does not shrink",
            |r| r.drain_seconds,
        )?;
        each(
            "kafka_consumergroup_stuck_partitions",
            "Partitions where records wait and the position has not moved for long",
            |r| Some(r.stuck() as f64),
        )
    }

    fn groups(&mut self, picture: &Picture) -> Result {
        let known = || picture.groups.iter().filter_map(|g| Some((&*g.name, g.status.as_ref()?)));
        self.family("kafka_consumergroup_members", "Members of the group", |series| {
            known().try_for_each(|(name, status)| {
                let labels = [("consumergroup", name)];
                series.maybe(&labels, status.members.map(|members| members as f64))
            })
        })?;
        self.family(
            "kafka_consumergroup_state",
            "1 for the state the group is in; type is classic, consumer (KIP-848), streams or share",
            |series| {
                known().try_for_each(|(name, status)| {
                    let labels =
                        [("consumergroup", name), ("state", status.state), ("type", status.kind)];
                    series.put(&labels, 1.0)
                })
            },
        )
    }

    fn stages(&mut self, picture: &Picture) -> Result {
        let mut each = |name, help, value: fn(&super::picture::StagePosition) -> Option<f64>| {
            self.family(name, help, |series| {
                picture.stages.iter().try_for_each(|position| {
                    let number = position.partition.to_string();
                    let labels = [
                        ("stage", &*position.stage),
                        ("topic", &*position.topic),
                        ("partition", number.as_str()),
                    ];
                    series.maybe(&labels, value(position))
                })
            })
        };
        each("stage_progress_offset", "Next offset of the stage as Postgres has it", |position| {
            Some(position.offset as f64)
        })?;
        each(
            "stage_progress_disagreement",
            "Records by which Postgres is ahead of the offset committed in Kafka; negative when it is behind, as after a restore",
            |position| position.ahead.map(|ahead| ahead as f64),
        )
    }
}

fn readings(picture: &Picture) -> impl Iterator<Item = (&GroupPicture, &Reading)> {
    picture.groups.iter().flat_map(|group| group.topics.iter().map(move |topic| (group, topic)))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::super::picture::{GroupStatus, Log, StagePosition, Topic};
    use super::*;

    fn behind(partition: i32, lag: i64, seconds: Option<f64>) -> Behind {
        Behind { partition, committed: Some(5), lag, seconds, lost: 2, margin: 7, stuck: lag > 0 }
    }

    fn picture() -> Picture {
        Picture {
            taken_at_ms: 1_500,
            brokers: 1,
            topics: vec![Topic {
                name: "t".into(),
                partitions: vec![Log { partition: 0, start: 3, end: 9 }],
            }],
            groups: vec![GroupPicture {
                name: "a \"b\"\\".into(),
                status: Some(GroupStatus { kind: "consumer", state: "Stable", members: Some(2) }),
                topics: vec![Reading {
                    topic: "t".into(),
                    partitions: vec![
                        behind(0, 4, Some(2.5)),
                        behind(1, 0, Some(0.0)),
                        behind(2, 1, None),
                    ],
                    ..Reading::default()
                }],
            }],
            stages: vec![StagePosition {
                stage: "payment".into(),
                topic: "t".into(),
                partition: 0,
                offset: 6,
                ahead: Some(-1),
            }],
        }
    }

    fn text(exported: &Exported) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(exported.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn series_say_what_the_picture_says() {
        let exported = Exported::new(Duration::from_secs(60));
        exported.show(picture());

        let text = text(&exported);

        let group = r#"consumergroup="a \"b\"\\",topic="t""#;
        for line in [
            format!("kafka_consumergroup_lag{{{group},partition=\"0\"}} 4"),
            format!("kafka_consumergroup_lag_seconds{{{group},partition=\"0\"}} 2.5"),
            format!("kafka_consumergroup_partition_stuck{{{group},partition=\"2\"}} 1"),
            format!("kafka_consumergroup_lag_sum{{{group}}} 5"),
            format!("kafka_consumergroup_lag_seconds_max{{{group}}} 2.5"),
            format!("kafka_consumergroup_lost_records{{{group}}} 6"),
            format!("kafka_consumergroup_stuck_partitions{{{group}}} 2"),
            "kafka_topic_partition_oldest_offset{topic=\"t\",partition=\"0\"} 3".to_owned(),
            "kafka_lag_exporter_last_update_timestamp_seconds 1.5".to_owned(),
            "stage_progress_disagreement{stage=\"payment\",topic=\"t\",partition=\"0\"} -1"
                .to_owned(),
        ] {
            assert!(
                text.lines().any(|found| found.trim_end_matches(".0") == line),
                "{line}\n{text}"
            );
        }
    }

    #[test]
    fn what_is_not_known_has_no_series() {
        let exported = Exported::new(Duration::from_secs(60));
        assert!(!text(&exported).contains("kafka_"), "nothing before the first refresh");
        exported.show(picture());

        let text = text(&exported);

        let starts = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(starts("kafka_consumergroup_lag_seconds{"), 2, "{text}");
        assert_eq!(starts("kafka_consumergroup_lag_growth"), 0);
        assert_eq!(starts("kafka_consumergroup_drain_seconds"), 0);
        assert_eq!(starts("kafka_consumergroup_partition_stuck{"), 2);
    }

    #[test]
    fn a_sum_that_would_leave_something_out_is_not_told() {
        let exported = Exported::new(Duration::from_secs(60));
        let mut picture = picture();
        picture.groups[0].topics[0].partitions.retain(|behind| behind.seconds.is_some());
        exported.show(picture.clone());
        for family in ["kafka_consumergroup_lag_sum{", "kafka_consumergroup_lag_seconds_sum{"] {
            assert!(text(&exported).contains(family), "{family}");
        }

        picture.groups[0].topics[0].unknown = 1;
        exported.show(picture);

        let text = text(&exported);
        for family in ["kafka_consumergroup_lag_sum{", "kafka_consumergroup_lag_seconds_sum{"] {
            assert!(!text.contains(family), "{text}");
        }
        assert!(text.contains("kafka_consumergroup_lag_max{"), "{text}");
    }

    #[test]
    fn an_old_picture_leaves_only_its_date() {
        let exported = Exported::new(Duration::ZERO);
        exported.show(picture());

        let text = text(&exported);

        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series, 1, "{text}");
        assert!(text.contains("kafka_lag_exporter_last_update_timestamp_seconds 1.5"), "{text}");
    }

    #[test]
    fn a_group_that_vanished_takes_its_series_along() {
        let exported = Exported::new(Duration::from_secs(60));
        exported.show(picture());
        exported.show(Picture { groups: Vec::new(), ..picture() });

        assert!(!text(&exported).contains("consumergroup=\""));
    }
}
