//! The proof of one fault: it is calm, something breaks, the alerts arrive as they should, it is mended, they are resolved, it
//! is calm again, and nothing else was told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::fault::{Expected, Fault};
use super::known::{self, ALWAYS};
use super::say;
use crate::eventually::eventually;
use crate::notification::Labels;
use crate::scene::receiver::Told;
use crate::scene::{Scene, shorter};

/// How long the last fault's echo may take to die away: the longest `keep_firing_for` is an hour, and lag has to drain.
const CALM_PATIENCE: Duration = Duration::from_secs(360);

/// How often Prometheus is asked what is pending.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Beyond this silence, counted as in `prometheus/`, a dead man raises the alarm.
const DEADMAN_SECONDS: u64 = 300;

/// When what was seen of one alert.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    pub(super) pending: Option<Duration>,
    pub(super) told: Option<Duration>,
    /// From the healing on.
    pub(super) resolved: Option<Duration>,
}

/// What came of a fault.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) alerts: BTreeMap<&'static str, Times>,
    /// What else was told, all of it foreseen.
    pub(super) followed: Vec<String>,
}

/// A fault under way.
pub(super) struct Proof<'a> {
    scene: &'a Scene,
    fault: &'a Fault,
    state: Mutex<State>,
}

struct State {
    begun: Instant,
    times: BTreeMap<&'static str, Times>,
    healing: Option<Instant>,
}

/// Puts `fault` to the proof.
pub(super) async fn prove(scene: &Scene, fault: &Fault) -> anyhow::Result<Proven> {
    calm(scene).await.context("before the fault")?;
    let begun = Instant::now();
    let state = State { begun, times: BTreeMap::new(), healing: None };
    let proof = Proof { scene, fault, state: Mutex::new(state) };
    (fault.strike)(scene, &proof).await?;
    ensure!(proof.state().healing.is_some(), "the fault did not wait for its alerts");
    proof.ends().await?;
    calm(scene).await.context("after the fault")?;
    let told = scene.receiver.since(begun);
    let followed = proof.judge(&told)?;
    if !fault.deafens {
        let silence = scene.receiver.longest_silence(begun);
        let patience = shorter(DEADMAN_SECONDS);
        ensure!(silence < patience, "the dead man did not hear Watchdog for {silence:?}");
    }
    let State { times, .. } = proof.state.into_inner().expect("no code panics while it holds it");
    Ok(Proven { alerts: times, followed })
}

impl Proof<'_> {
    /// The fault happens now: what was done before only prepared it. Times count from here.
    pub(super) fn begins(&self) {
        self.state().begun = Instant::now();
    }

    /// Waits until every alert that the fault must cause has arrived as it should, at most `patience`. What is broken is
    /// mended next: the time from here on counts as healing.
    pub(super) async fn arrives(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            self.look().await;
            let missing = self.missing(true);
            if missing.is_empty() {
                let mut state = self.state();
                state.healing = Some(Instant::now());
                say(&format!(
                    "    told after {:.1} s; mending",
                    state.begun.elapsed().as_secs_f64()
                ));
                return Ok(());
            }
            if Instant::now() >= deadline {
                let active = self.scene.prometheus.alerts().await;
                let active =
                    active.map(|all| known::summary(&all)).unwrap_or_else(|e| e.to_string());
                bail!("{missing:?} did not arrive within {patience:?}; now: {active}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The same while `again` happens over and over; it stops between two times.
    pub(super) async fn arrives_during(
        &self,
        patience: Duration,
        mut again: impl AsyncFnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut arrives = std::pin::pin!(self.arrives(patience));
        loop {
            let mut arrived = None;
            let mut turn = std::pin::pin!(again());
            // The turn is finished, whatever arrives meanwhile: it leaves nothing half done.
            let turned = loop {
                tokio::select! {
                    outcome = &mut arrives, if arrived.is_none() => arrived = Some(outcome),
                    turned = &mut turn => break turned,
                }
            };
            turned?;
            if let Some(outcome) = arrived {
                return outcome;
            }
        }
    }

    /// Waits until the end of each was told too: for a fault that has something to do until then.
    pub(super) async fn ends(&self) -> anyhow::Result<()> {
        eventually(CALM_PATIENCE, "the ends of the alerts are told", async || {
            let missing = self.missing(false);
            ensure!(missing.is_empty(), "{missing:?} still fire");
            Ok(())
        })
        .await
    }

    /// Notes what is pending, and what was told.
    async fn look(&self) {
        // Prometheus may be what is broken.
        let Ok(active) = self.scene.prometheus.alerts().await else { return };
        let mut state = self.state();
        for expected in self.fault.proves {
            let seen = active.iter().any(|alert| fits(expected, &alert.labels));
            if seen {
                let since = state.begun.elapsed();
                state.times.entry(expected.alert).or_default().pending.get_or_insert(since);
            }
        }
    }

    /// Expected alerts of which neither beginning nor end, as asked, was told.
    fn missing(&self, firing: bool) -> Vec<&'static str> {
        let mut state = self.state();
        let from = if firing { state.begun } else { state.healing.unwrap_or(state.begun) };
        let told = self.scene.receiver.since(from);
        let mut missing = Vec::new();
        for expected in self.fault.proves {
            let found =
                told.iter().find(|told| told.firing == firing && fits(expected, &told.labels));
            let times = state.times.entry(expected.alert).or_default();
            match found {
                Some(told) if firing => {
                    times.told.get_or_insert(told.at - from);
                }
                Some(told) => {
                    times.resolved.get_or_insert(told.at - from);
                }
                None => missing.push(expected.alert),
            }
        }
        missing
    }

    /// Every message is as it should be, and is about this fault; answers what followed.
    fn judge(&self, told: &[Told]) -> anyhow::Result<Vec<String>> {
        let mut followed = Vec::new();
        for message in told {
            known::check(message)?;
            let name = message.name();
            if ALWAYS.iter().any(|always| always.covers(&message.labels)) {
                continue;
            }
            ensure!(
                self.fault.allows(name),
                "{name} does not follow from this fault: {:?}",
                message.labels
            );
            if !self.fault.proves(name) && !followed.iter().any(|known| known == name) {
                followed.push(name.to_owned());
            }
        }
        Ok(followed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

fn fits(expected: &Expected, labels: &Labels) -> bool {
    let is = |name: &str, value: &str| labels.get(name).is_some_and(|found| found.ends_with(value));
    is("alertname", expected.alert) && expected.labels.iter().all(|(name, value)| is(name, value))
}

/// Waits until nothing is pending or fires, here and at the other end, but for what always may.
pub(super) async fn calm(scene: &Scene) -> anyhow::Result<()> {
    eventually(CALM_PATIENCE, "it is calm", async || {
        let mut active = scene.prometheus.alerts().await?;
        active.retain(|alert| !ALWAYS.iter().any(|always| always.covers(&alert.labels)));
        ensure!(active.is_empty(), "{}", known::summary(&active));
        let mut firing = scene.receiver.firing();
        firing.retain(|labels| !ALWAYS.iter().any(|always| always.covers(labels)));
        ensure!(firing.is_empty(), "no end was told of {firing:?}");
        Ok(())
    })
    .await
}
