//! What the samples of all endpoints say of the pipeline, from one look or from two. Pure: no clock, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use schemas::TopicPrefix;
use serde::Serialize;

use super::endpoints::Answer;
use super::exposition::Sample;
use crate::lag_exporter::arithmetic::{drain_seconds, growth};

/// What is known of a stage; what is not known is `None`, and never a zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Stage {
    pub(super) stage: String,
    /// Where the numbers come from: its own process, the lag exporter, Postgres; or nowhere.
    pub(super) source: &'static str,
    pub(super) partitions: Option<usize>,
    pub(super) owners: Option<usize>,
    pub(super) events_per_second: Option<f64>,
    pub(super) lag: Option<i64>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) drain_seconds: Option<f64>,
    pub(super) processing_p50_seconds: Option<f64>,
    pub(super) processing_p99_seconds: Option<f64>,
    pub(super) outbox: Option<i64>,
    pub(super) dead_letters: Option<i64>,
    pub(super) parked_orders: Option<i64>,
}

/// What is known of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pipeline {
    pub(super) stages: Vec<Stage>,
    /// Orders that came to an end, by status.
    pub(super) finished: BTreeMap<String, f64>,
    /// Closed workflows by how they closed.
    pub(super) workflows: BTreeMap<&'static str, f64>,
    pub(super) endpoints: Vec<(String, Result<String, String>)>,
}

const WORKFLOWS: [(&str, &str); 3] = [
    ("temporal_workflow_completed_total", "completed"),
    ("temporal_workflow_failed_total", "failed"),
    ("temporal_workflow_canceled_total", "canceled"),
];

impl Pipeline {
    /// From the newest answers and, for whatever takes two looks, those before them.
    pub(super) fn of(
        names: &[&str],
        prefix: &TopicPrefix,
        before: Option<&[Answer]>,
        now: &[Answer],
    ) -> Self {
        let known: Vec<Known<'_>> = now.iter().filter_map(|answer| known(answer, before)).collect();
        let mut all: BTreeSet<&str> = names.iter().copied().collect();
        for sample in known.iter().flat_map(|k| k.now).filter(|s| s.name == "stage_events_total") {
            all.insert(sample.label("stage"));
        }
        let (ours, others): (Vec<&str>, Vec<&str>) =
            (names.to_vec(), all.into_iter().filter(|name| !names.contains(name)).collect());
        let stages = ours.into_iter().chain(others);
        let stages = stages.map(|stage| stage_of(stage, &prefix.group(stage), &known)).collect();
        let mut pipeline = Self { stages, endpoints: endpoints(now), ..Self::default() };
        for sample in known.iter().flat_map(|known| known.now) {
            if sample.name == "order_processing_duration_seconds_count" {
                *pipeline.finished.entry(sample.label("status").to_owned()).or_default() +=
                    sample.value;
            }
            if let Some((_, outcome)) = WORKFLOWS.iter().find(|(name, _)| *name == sample.name) {
                *pipeline.workflows.entry(outcome).or_default() += sample.value;
            }
        }
        pipeline
    }

    /// Whether any process answered.
    pub(super) fn is_known(&self) -> bool {
        self.endpoints.iter().any(|(_, answer)| answer.is_ok())
    }
}

/// What one endpoint says, now and before.
struct Known<'a> {
    now: &'a [Sample],
    before: Option<&'a [Sample]>,
    seconds: f64,
    is_exporter: bool,
}

fn known<'a>(answer: &'a Answer, before: Option<&'a [Answer]>) -> Option<Known<'a>> {
    let now = answer.samples.as_deref().ok()?;
    let earlier = before.and_then(|before| before.iter().find(|b| b.endpoint == answer.endpoint));
    let earlier = earlier.filter(|earlier| earlier.samples.is_ok());
    let since = |earlier: Instant| answer.at.saturating_duration_since(earlier).as_secs_f64();
    Some(Known {
        now,
        before: earlier.and_then(|earlier| earlier.samples.as_deref().ok()),
        seconds: earlier.map_or(0.0, |earlier| since(earlier.at)),
        is_exporter: now.iter().any(|sample| sample.name.starts_with("kafka_lag_exporter_")),
    })
}

fn endpoints(answers: &[Answer]) -> Vec<(String, Result<String, String>)> {
    let shown = answers.iter().filter(|answer| answer.samples.is_ok() || !answer.endpoint.optional);
    shown
        .map(|answer| {
            let what = answer.samples.as_ref().map_err(Clone::clone).map(|samples| {
                let build =
                    samples.iter().find(|sample| sample.name == "order_pipeline_build_info");
                build.map_or("answers".to_owned(), |build| {
                    format!("{} {}", build.label("process"), build.label("version"))
                })
            });
            (answer.endpoint.address.clone(), what)
        })
        .collect()
}

fn stage_of(stage: &str, group: &str, known: &[Known<'_>]) -> Stage {
    let runs = |k: &&Known<'_>| {
        let its =
            |sample: &Sample| sample.name == "stage_events_total" && sample.label("stage") == stage;
        k.now.iter().any(its)
    };
    let own: Vec<&Known<'_>> = known.iter().filter(runs).collect();
    let exporters: Vec<&Known<'_>> = known.iter().filter(|known| known.is_exporter).collect();
    let of_stage = |samples: &[Sample], name: &str| -> Option<f64> {
        sum(samples.iter().filter(|s| s.name == name && s.label("stage") == stage))
    };
    let total = |name| sum_of(own.iter().filter_map(|known| of_stage(known.now, name)));
    let most = |name| own.iter().filter_map(|known| of_stage(known.now, name)).reduce(f64::max);
    let (source, holders) = match (own.is_empty(), exporters.is_empty()) {
        (false, _) => ("stage", &own),
        (true, false) => ("lag-exporter", &exporters),
        (true, true) => ("none", &own),
    };
    let of_group = |samples: &'_ [Sample], name: &str| -> Vec<f64> {
        let its = |s: &&Sample| s.name == name && s.label("consumergroup") == group;
        samples.iter().filter(its).map(|sample| sample.value).collect()
    };
    let lag = |samples: fn(&Known<'_>) -> Vec<Sample>| {
        sum_of(holders.iter().flat_map(|k| of_group(&samples(k), "kafka_consumergroup_lag")))
    };
    let lag_now = lag(|known| known.now.to_vec()).map(|lag| lag as i64);
    let lag_before = holders
        .iter()
        .all(|known| known.before.is_some())
        .then(|| lag(|known| known.before.unwrap_or_default().to_vec()))
        .flatten();
    let seconds = holders.iter().map(|known| known.seconds).reduce(f64::max).unwrap_or(0.0);
    let trend = match (lag_before, lag_now) {
        (Some(before), Some(now)) => growth(before as i64, now, seconds),
        _ => None,
    };
    let drain = match source {
        "lag-exporter" => exported_drain(group, &exporters),
        _ => lag_now.and_then(|lag| drain_seconds(lag, trend)),
    };
    let (p50, p99) = processing(stage, &own);
    Stage {
        stage: stage.to_owned(),
        source: if lag_now.is_none() && own.is_empty() { "none" } else { source },
        partitions: lag_now.map(|_| {
            let series = |known: &&Known<'_>| of_group(known.now, "kafka_consumergroup_lag").len();
            holders.iter().map(series).sum()
        }),
        owners: (!own.is_empty()).then_some(own.len()),
        events_per_second: rate(stage, &own),
        lag: lag_now,
        lag_seconds: holders
            .iter()
            .flat_map(|known| of_group(known.now, "kafka_consumergroup_lag_seconds"))
            .reduce(f64::max),
        drain_seconds: drain,
        processing_p50_seconds: p50,
        processing_p99_seconds: p99,
        outbox: total("stage_outbox_pending").map(|count| count as i64),
        // Read from the database by every replica: they all tell the same.
        dead_letters: most("dead_letters_open").map(|count| count as i64),
        parked_orders: most("parked_orders").map(|count| count as i64),
    }
}

/// As the lag exporter sees it, which looks less often than we do; known when it is known of every topic.
fn exported_drain(group: &str, exporters: &[&Known<'_>]) -> Option<f64> {
    let of = |name: &str| -> Vec<f64> {
        let samples = exporters.iter().flat_map(|known| known.now);
        let its = |s: &&Sample| s.name == name && s.label("consumergroup") == group;
        samples.filter(its).map(|sample| sample.value).collect()
    };
    let (lags, drains) =
        (of("kafka_consumergroup_lag_sum"), of("kafka_consumergroup_drain_seconds"));
    (lags.len() == drains.len()).then(|| drains.into_iter().reduce(f64::max)).flatten()
}

/// Events that were settled per second, over all replicas that answered twice.
fn rate(stage: &str, own: &[&Known<'_>]) -> Option<f64> {
    let settled = |samples: &[Sample]| {
        sum(samples.iter().filter(|sample| {
            sample.name == "stage_events_total"
                && sample.label("stage") == stage
                && sample.label("outcome") != "retried"
        }))
    };
    sum_of(own.iter().filter_map(|known| {
        let (before, now) = (settled(known.before?)?, settled(known.now)?);
        // Less than before: it was started anew, and all it counted is since then.
        let since = if now < before { now } else { now - before };
        (known.seconds > 0.0).then(|| since / known.seconds)
    }))
}

/// p50 and p99 between the two looks; since the start where nothing was processed between them, or there was only one.
fn processing(stage: &str, own: &[&Known<'_>]) -> (Option<f64>, Option<f64>) {
    let mut between: Vec<(f64, f64)> = Vec::new();
    let mut since_start: Vec<(f64, f64)> = Vec::new();
    for known in own {
        let now = buckets(stage, known.now);
        let before = buckets(stage, known.before.unwrap_or_default());
        for (place, (bound, count)) in now.iter().enumerate() {
            add(&mut since_start, *bound, *count);
            if known.before.is_some() {
                let earlier = before.get(place).map_or(0.0, |(_, earlier)| *earlier);
                add(&mut between, *bound, (count - earlier).max(0.0));
            }
        }
    }
    let chosen = if quantile(&between, 0.5).is_some() { between } else { since_start };
    (quantile(&chosen, 0.5), quantile(&chosen, 0.99))
}

fn buckets(stage: &str, samples: &[Sample]) -> Vec<(f64, f64)> {
    let its =
        |s: &&Sample| s.name == "stage_processing_seconds_bucket" && s.label("stage") == stage;
    let bound = |sample: &Sample| match sample.label("le") {
        "+Inf" => Some(f64::INFINITY),
        bound => bound.parse().ok(),
    };
    let mut buckets: Vec<(f64, f64)> =
        samples.iter().filter(its).filter_map(|s| Some((bound(s)?, s.value))).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

fn add(buckets: &mut Vec<(f64, f64)>, bound: f64, count: f64) {
    match buckets.iter_mut().find(|(known, _)| *known == bound) {
        Some((_, sum)) => *sum += count,
        None => buckets.push((bound, count)),
    }
}

/// The way Prometheus does it: evenly within a bucket; in the last one, its lower bound.
fn quantile(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let rank = q * all;
    let place = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = buckets[place];
    let (lower, below) = if place == 0 { (0.0, 0.0) } else { buckets[place - 1] };
    if bound.is_infinite() {
        return Some(lower);
    }
    Some(lower + (bound - lower) * (rank - below) / (count - below))
}

fn sum<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<f64> {
    sum_of(samples.map(|sample| sample.value))
}

fn sum_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::endpoints::Endpoint;
    use super::super::exposition::parse;
    use super::*;

    fn answer(address: &str, at: Instant, text: Result<&str, &str>) -> Answer {
        Answer {
            endpoint: Endpoint { address: address.to_owned(), optional: false },
            at,
            samples: text.map(parse).map_err(str::to_owned),
        }
    }

    fn metrics(events: u32, lag: u32, fast: u32, slow: u32) -> String {
        let all = fast + slow;
        format!(
            "stage_events_total{{stage=\"payment\",outcome=\"applied\"}} {events}\n\
             stage_events_total{{stage=\"payment\",outcome=\"retried\"}} 999\n\
             kafka_consumergroup_lag{{consumergroup=\"orders.payment\",topic=\"t\",partition=\"0\"}} {lag}\n\
             kafka_consumergroup_lag_seconds{{consumergroup=\"orders.payment\",topic=\"t\",partition=\"0\"}} 2.5\n\
             stage_processing_seconds_bucket{{stage=\"payment\",le=\"0.01\"}} {fast}\n\
             stage_processing_seconds_bucket{{stage=\"payment\",le=\"0.1\"}} {all}\n\
             stage_processing_seconds_bucket{{stage=\"payment\",le=\"+Inf\"}} {all}\n\
             dead_letters_open{{stage=\"payment\"}} 3\n\
             stage_outbox_pending{{stage=\"payment\"}} 1\n"
        )
    }

    fn payment(before: Option<&[Answer]>, now: &[Answer]) -> Stage {
        let pipeline = Pipeline::of(&["payment"], &TopicPrefix::default(), before, now);
        assert_eq!(pipeline.stages.len(), 1);
        pipeline.stages[0].clone()
    }

    #[test]
    fn two_replicas_are_one_stage() {
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let old = metrics(100, 50, 0, 0);
        let new = metrics(140, 30, 9, 1);
        let before = ["a", "b"].map(|address| answer(address, start, Ok(&old)));
        let now = ["a", "b"].map(|address| answer(address, later, Ok(&new)));

        let stage = payment(Some(&before), &now);

        assert_eq!(stage.events_per_second, Some(40.0));
        assert_eq!((stage.lag, stage.lag_seconds), (Some(60), Some(2.5)));
        assert_eq!(stage.drain_seconds, Some(3.0), "60 at 20 a second");
        assert_eq!((stage.outbox, stage.dead_letters), (Some(2), Some(3)));
        assert!(stage.processing_p50_seconds.unwrap() < 0.01);
        assert!(stage.processing_p99_seconds.unwrap() > 0.05);
    }

    #[test]
    fn one_look_knows_no_rates() {
        let text = metrics(100, 50, 1, 0);

        let stage = payment(None, &[answer("a", Instant::now(), Ok(&text))]);

        assert_eq!((stage.events_per_second, stage.drain_seconds), (None, None));
        assert_eq!(stage.lag, Some(50));
        assert!(stage.processing_p50_seconds.is_some(), "since the start");
    }

    #[test]
    fn a_process_that_was_started_anew_has_no_negative_rate() {
        let start = Instant::now();
        let (old, new) = (metrics(100, 0, 0, 0), metrics(10, 0, 0, 0));
        let before = [answer("a", start, Ok(&old))];

        let stage =
            payment(Some(&before), &[answer("a", start + Duration::from_secs(1), Ok(&new))]);

        assert_eq!(stage.events_per_second, Some(10.0));
    }

    #[test]
    fn of_a_dead_stage_the_lag_exporter_still_tells() {
        let text = "kafka_lag_exporter_requests_total 1\n\
             kafka_consumergroup_lag{consumergroup=\"orders.payment\",topic=\"t\",partition=\"0\"} 7\n\
             kafka_consumergroup_lag{consumergroup=\"others\",topic=\"t\",partition=\"0\"} 9\n\
             kafka_consumergroup_lag_seconds{consumergroup=\"orders.payment\",topic=\"t\",partition=\"0\"} 60\n";
        let now = [
            answer("a", Instant::now(), Err("connection refused")),
            answer("x", Instant::now(), Ok(text)),
        ];

        let stage = payment(None, &now);

        assert_eq!(
            (stage.source, stage.lag, stage.lag_seconds),
            ("lag-exporter", Some(7), Some(60.0))
        );
        assert_eq!(stage.outbox, None, "unknown is not zero");
        assert_eq!((stage.owners, stage.partitions), (None, Some(1)));
    }

    #[test]
    fn time_to_drain_is_known_when_that_of_every_topic_is() {
        let sums = "kafka_lag_exporter_requests_total 1\n\
             kafka_consumergroup_lag{consumergroup=\"orders.payment\",topic=\"t\",partition=\"0\"} 7\n\
             kafka_consumergroup_lag_sum{consumergroup=\"orders.payment\",topic=\"t\"} 7\n\
             kafka_consumergroup_lag_sum{consumergroup=\"orders.payment\",topic=\"u\"} 0\n\
             kafka_consumergroup_drain_seconds{consumergroup=\"orders.payment\",topic=\"u\"} 0\n";
        let all = format!(
            "{sums}kafka_consumergroup_drain_seconds{{consumergroup=\"orders.payment\",topic=\"t\"}} 9\n"
        );

        let drain =
            |text: &str| payment(None, &[answer("x", Instant::now(), Ok(text))]).drain_seconds;

        assert_eq!((drain(sums), drain(&all)), (None, Some(9.0)));
    }

    #[test]
    fn both_sources_are_not_added_up() {
        let own = metrics(1, 5, 0, 0);
        let exporter = format!(
            "kafka_lag_exporter_requests_total 1\n{}",
            metrics(0, 5, 0, 0).lines().nth(2).unwrap()
        );
        let now =
            [answer("a", Instant::now(), Ok(&own)), answer("x", Instant::now(), Ok(&exporter))];

        assert_eq!(payment(None, &now).lag, Some(5));
    }

    #[test]
    fn who_does_not_answer_is_told_of_and_who_was_only_looked_for_is_not() {
        let mut optional = answer("b", Instant::now(), Err("connection refused"));
        optional.endpoint.optional = true;
        let now = [answer("a", Instant::now(), Err("connection refused")), optional];

        let pipeline = Pipeline::of(&["payment"], &TopicPrefix::default(), None, &now);

        assert_eq!(pipeline.endpoints, [("a".to_owned(), Err("connection refused".to_owned()))]);
        assert!(!pipeline.is_known());
        assert_eq!(pipeline.stages[0].source, "none");
    }
}
