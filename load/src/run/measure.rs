//! One run: attack, wait for the drain, ask the auditor, read the tables. `numbers` puts together what was seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use schemas::Timestamp;
use serde::Serialize;

use super::look::{Eyes, Metrics};
use super::numbers::{MIB, by_second, counters, distribution, peaks, seconds_to_final, usages};
use super::observed::{Audited, Counter, Drain, Observed, Quantiles};
use super::profile::{Budget, Step};
use super::progress::{Progress, Standing};
use super::tally::Tally;
use super::vegeta::{Attack, Vegeta};
use crate::pipeline::{Fate, Pipeline};
use crate::signals::Signals;
use crate::targets::{Targets, Traffic};
use crate::usage::{self, Subject, Watch};

/// How often it is looked. The lag that is looked at moves once a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How exactly the end of the drain is known.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(100);
/// The clocks of this machine and of a pipeline elsewhere may differ by so much.
const CLOCKS: Duration = Duration::from_secs(2);
/// The auditor reads every topic, on busy cores.
const AUDIT_PATIENCE: Duration = Duration::from_secs(60);

/// The pipeline under load.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) pipeline: Pipeline,
    /// Where the API is.
    pub(crate) url: String,
    pub(crate) eyes: Eyes,
    /// Processes in sight.
    pub(crate) subjects: Vec<Subject>,
    /// Whether nobody else places orders.
    pub(crate) is_own: bool,
}

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) run: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) traffic: Traffic,
    pub(crate) budget: Budget,
    /// Where vegeta's results go.
    pub(crate) folder: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) observed: Observed,
    pub(crate) moments: Vec<Moment>,
    /// Client latency by second.
    pub(crate) latencies: Vec<Second>,
    /// Client latency by share of requests, for the distribution.
    pub(crate) distribution: Vec<(f64, f64)>,
}

/// The pipeline at a time of the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Moment {
    /// Seconds since the run began.
    pub(crate) at: f64,
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) completed: u64,
    pub(crate) metrics: Metrics,
    /// Resident MiB by process.
    pub(crate) memory: BTreeMap<String, f64>,
}

/// The requests whose turn was in one second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Second {
    pub(crate) at: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Site {
    /// Runs `plan` to its end, or to the first signal.
    pub(crate) async fn measure(
        &self,
        vegeta: &Vegeta,
        plan: &Plan,
        signals: &Signals,
    ) -> anyhow::Result<Measured> {
        let mut tables = self.pipeline.tables().await?;
        let mut run = Run {
            site: self,
            plan,
            begun: Instant::now(),
            attack_ended: None,
            interrupted: None,
            since: 0,
            tally: Arc::default(),
            final_before: tables.final_orders().await?,
            tables,
            moments: Vec::new(),
            progress: Progress::of(plan.offered_until(f64::INFINITY)),
            watch: Watch::start(self.subjects.clone()),
        };
        let (before, cpu) = (self.eyes.look().await, usage::cpu(&self.subjects)?);
        let clocks = if self.is_own { Duration::ZERO } else { CLOCKS };
        run.since = Timestamp::now().as_micros() - i64::try_from(clocks.as_micros())?;
        run.attack(vegeta, signals).await?;
        let drain = run.drain().await?;
        run.progress.finish();
        // Counted before the auditor works the servers.
        let used = usage::cpu(&self.subjects)?;
        let cpu = usage::per(1.0, &cpu, &used);
        let patience = if drain.ended { AUDIT_PATIENCE } else { Duration::ZERO };
        let audit = self.pipeline.audit_since(patience, run.since).await?;
        let fates = run.tables.fates(run.since).await?;
        let after = self.eyes.look().await;

        let Run { tally, moments, attack_ended, interrupted, begun, watch, .. } = run;
        let tally = tally.lock().expect("no code panics while it holds this lock");
        let seconds = attack_ended.unwrap_or_else(Instant::now) - begun;
        let until = interrupted.map_or(f64::INFINITY, |at| (at - begun).as_secs_f64());
        let mut observed = Observed {
            interrupted: interrupted.is_some(),
            seconds: seconds.as_secs_f64(),
            offered: plan.offered_until(until),
            drain,
            lag: peaks(&moments),
            usage: usages(&cpu, &watch),
            audit: Audited::from(&audit),
            ..tally.observed()
        };
        observed.follow(&tally.accepted, &fates, plan.budget.late_after_seconds);
        if self.is_own {
            observed.counters = counters(&observed, &before, &after);
            // Whoever places an order without being told so may have placed each unknown one.
            let most = observed.accepted + observed.unknown_orders();
            observed.counters.push(Counter {
                name: "orders in the topic".to_owned(),
                moved: Some(observed.audit.placed as f64),
                at_least: observed.accepted,
                at_most: most,
            });
        }
        let felt = tally.felt(&plan.steps);
        observed.client = Quantiles::of(felt.iter().map(|felt| felt.latency).collect());
        let latencies = by_second(&felt);
        Ok(Measured { observed, moments, latencies, distribution: distribution(&felt) })
    }
}

impl Plan {
    /// Requests that are due in the first `seconds`.
    pub(crate) fn offered_until(&self, seconds: f64) -> u64 {
        let mut left = seconds;
        let due = self.steps.iter().map(|step| {
            let here = left.clamp(0.0, f64::from(step.seconds));
            left -= here;
            (here * f64::from(step.rate)) as u64
        });
        due.sum()
    }
}

struct Run<'a> {
    site: &'a Site,
    plan: &'a Plan,
    begun: Instant,
    attack_ended: Option<Instant>,
    interrupted: Option<Instant>,
    /// The time before the first request, in microseconds since 1970.
    since: i64,
    tally: Arc<Mutex<Tally>>,
    tables: crate::pipeline::Tables,
    final_before: u64,
    moments: Vec<Moment>,
    progress: Progress,
    watch: Watch,
}

impl Run<'_> {
    /// Each step begins when it is due, whatever the one before still waits for.
    async fn attack(&mut self, vegeta: &Vegeta, signals: &Signals) -> anyhow::Result<()> {
        let targets = Targets::new(&self.site.url, &self.plan.run, &self.plan.traffic);
        let targets = Arc::new(Mutex::new(targets));
        let mut attacks: Vec<Attack> = Vec::new();
        self.begun = Instant::now();
        let mut due = self.begun;
        let mut steps = self.plan.steps.iter().enumerate();
        let mut next = steps.next();
        loop {
            if signals.came() && self.interrupted.is_none() {
                self.interrupted = Some(Instant::now());
                eprintln!(
                    "interrupted: nothing more is sent, what was accepted is followed to its end"
                );
                next = None;
                for attack in &mut attacks {
                    attack.stop()?;
                }
            }
            if let Some((number, step)) = next.filter(|_| Instant::now() >= due) {
                let file = results_file(&self.plan.folder, number);
                let tally = self.tally.clone();
                let hear = move |hit| {
                    let mut tally = tally.lock().expect("no code panics while it holds this lock");
                    tally.hear(number, hit);
                };
                attacks.push(vegeta.attack(*step, targets.clone(), &file, hear)?);
                due += Duration::from_secs(step.seconds.into());
                next = steps.next();
            }
            if next.is_none() && attacks.iter().all(Attack::has_ended) {
                break;
            }
            self.moment().await?;
            let until = Instant::now() + LOOK_EVERY;
            let until = if next.is_some() { until.min(due) } else { until };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = signals.wait(), if self.interrupted.is_none() => {}
            }
        }
        self.attack_ended = Some(Instant::now());
        attacks.into_iter().try_for_each(Attack::ended)
    }

    /// Waits until every order that was accepted has ended, and counts from the last answer.
    async fn drain(&mut self) -> anyhow::Result<Drain> {
        let begun = self.heard(|tally| tally.last_heard).unwrap_or_else(Instant::now);
        let patience = Duration::from_secs(self.plan.budget.drain_patience_seconds.into());
        let mut looked = Instant::now();
        loop {
            let ended = self.has_drained().await?;
            let seconds = begun.elapsed().as_secs_f64();
            if ended || begun.elapsed() >= patience {
                self.moment().await?;
                return Ok(Drain { seconds, ended });
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.moment().await?;
            }
            tokio::time::sleep(DRAIN_LOOK_EVERY).await;
        }
    }

    async fn has_drained(&mut self) -> anyhow::Result<bool> {
        let accepted = self.heard(|tally| tally.accepted.len()) as u64;
        // Cheap, and enough of an answer most of the time.
        if self.tables.final_orders().await?.saturating_sub(self.final_before) < accepted {
            return Ok(false);
        }
        // Others may have ended instead: orders of other clients, or those whose answer never came.
        let fates = self.tables.fates(self.since).await?;
        let accepted_and_final = self.heard(|tally| {
            let is_ours = |fate: &&Fate| tally.accepted.contains(&fate.order_id);
            fates.iter().filter(is_ours).filter_map(seconds_to_final).count() as u64
        });
        Ok(accepted_and_final >= accepted)
    }

    fn heard<T>(&self, ask: impl FnOnce(&Tally) -> T) -> T {
        ask(&self.tally.lock().expect("no code panics while it holds this lock"))
    }

    async fn moment(&mut self) -> anyhow::Result<()> {
        let at = self.begun.elapsed().as_secs_f64();
        let metrics = self.site.eyes.look().await;
        let ended = self.tables.final_orders().await?.saturating_sub(self.final_before);
        let (accepted, rejected) =
            self.heard(|tally| (tally.accepted.len() as u64, tally.rejected_orders()));
        let offered = match self.interrupted {
            Some(when) => self.plan.offered_until((when - self.begun).as_secs_f64()),
            None => self.plan.offered_until(at),
        };
        self.progress.show(Standing {
            offered,
            accepted,
            rejected,
            completed: ended,
            lag_records: metrics
                .lag
                .values()
                .map(|lag| lag.records)
                .fold(0.0, |sum, records| sum + records),
            lag_seconds: metrics.lag.values().map(|lag| lag.seconds).fold(0.0, f64::max),
        });
        let seen = self.watch.seen();
        let last = |bytes: &Vec<u64>| bytes.last().map(|bytes| *bytes as f64 / MIB);
        let memory = seen
            .iter()
            .filter_map(|(name, bytes)| Some(((*name).to_owned(), last(bytes)?)))
            .collect();
        let completed = ended;
        self.moments.push(Moment { at, offered, accepted, rejected, completed, metrics, memory });
        Ok(())
    }
}

fn results_file(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("results-{step}.bin"))
}
