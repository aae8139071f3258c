//! Budgets of errors: clients on bad connections make answers slow, some of them or all.

use std::time::Duration;

use futures::FutureExt;

use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::scene::{ORDERS_PER_SECOND, Scene};

/// An hour of `for`, and the windows before it.
const SLOW_PATIENCE: Duration = Duration::from_secs(300);
const FAST_PATIENCE: Duration = Duration::from_secs(120);

/// 4.5 times as fast as the budget lasts: more than three times, which is slow, and less than six, which is fast.
const SLOWLY_PER_MILLE: u32 = 45;

/// Enough good answers to thin out the bad ones in a window of three days.
const PLENTY_PER_SECOND: u32 = 250;

pub(in crate::alerts) const SLOW: &[Fault] = &[Fault {
    what: "one client in 22 is slow",
    proves: &[alert("ErrorBudgetBurnSlow", &[("slo", "api-latency")])],
    follows: &[],
    temporal: false,
    deafens: false,
    strike: |scene, proof| some(scene, proof).boxed_local(),
}];

/// What burns the budget of months, and leaves little of it for a while.
pub(in crate::alerts) const FAST: &[Fault] = &[Fault {
    what: "every client is slow",
    proves: &[alert("ErrorBudgetBurnFast", &[("slo", "api-latency")])],
    follows: &[],
    temporal: false,
    deafens: false,
    strike: |scene, proof| all(scene, proof).boxed_local(),
}];

async fn some(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.orders.set_slow(SLOWLY_PER_MILLE);
    let arrived = proof.arrives(SLOW_PATIENCE).await;
    scene.orders.set_slow(0);
    arrived?;
    scene.orders.set_rate(PLENTY_PER_SECOND);
    let ended = proof.ends().await;
    scene.orders.set_rate(ORDERS_PER_SECOND);
    ended
}

async fn all(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.orders.set_slow(1000);
    let arrived = proof.arrives(FAST_PATIENCE).await;
    scene.orders.set_slow(0);
    arrived
}
