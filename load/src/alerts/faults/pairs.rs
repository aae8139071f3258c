//! Pairs that watch: what one of two notices of the other.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use futures::FutureExt;

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::alerts::second::Watcher;
use crate::eventually::eventually;
use crate::pipeline::free_addresses;
use crate::scene::Scene;

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "one Prometheus of two loses its Alertmanager",
        proves: &[alert("PrometheusNotifying", &[("job", "prometheus")])],
        follows: &[("JobGone", "the same targets are those of the job alertmanager")],
        temporal: false,
        deafens: false,
        strike: |scene, proof| unheard(scene, proof).boxed_local(),
    },
    Fault {
        what: "two Alertmanagers lose each other",
        proves: &[alert("AlertmanagerClusterSplit", &[("job", "alertmanager")])],
        follows: &[("TargetDown", "one of them is started anew to make it forget the other")],
        temporal: false,
        deafens: false,
        strike: |scene, proof| split(scene, proof).boxed_local(),
    },
];

async fn unheard(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let address = alertmanager(scene)?;
    let _second = Watcher::prometheus(scene).await?;
    proof.begins();
    scene.targets("alertmanager", &[])?;
    let arrived = proof.arrives(PATIENCE).await;
    scene.targets("alertmanager", &[address])?;
    arrived?;
    // Told by the second one, which has to stay until then.
    proof.ends().await
}

async fn split(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let first = alertmanager(scene)?;
    let [one, other, gossip_one, gossip_other, gossip_elsewhere] = free_addresses()?;
    let start = async |gossip, peer| Watcher::alertmanager(scene, other, gossip, peer).await;
    let one = Watcher::alertmanager(scene, one, gossip_one, None).await?;
    let mut pair = start(gossip_other, Some(gossip_one)).await?;
    scene.targets("alertmanager", &[first, one.address, pair.address])?;
    sees(scene, 2.0).await?;
    // Under another address, and alone: the one that stayed looks for it in vain.
    drop(pair);
    pair = start(gossip_elsewhere, None).await?;
    sees(scene, 1.0).await?;
    proof.begins();
    let arrived = proof.arrives(PATIENCE).await;
    drop(pair);
    pair = start(gossip_other, Some(gossip_one)).await?;
    sees(scene, 2.0).await?;
    let ended = match arrived {
        Ok(()) => proof.ends().await,
        Err(error) => Err(error),
    };
    scene.targets("alertmanager", &[first])?;
    drop((one, pair));
    ended
}

/// Waits until both are scraped, and the one that sees most sees so many.
async fn sees(scene: &Scene, members: f64) -> anyhow::Result<()> {
    let most = "max(alertmanager_cluster_members) + 10 * count(alertmanager_cluster_members)";
    eventually(PATIENCE, "two Alertmanagers see as many as they should", async || {
        let seen = scene.prometheus.value(most).await?.context("they are not scraped")?;
        ensure!(seen == 20.0 + members, "both together say {seen}");
        Ok(())
    })
    .await
}

fn alertmanager(scene: &Scene) -> anyhow::Result<SocketAddr> {
    let url = scene.stack.env()?.into_iter().find(|(name, _)| *name == "ALERTMANAGER_URL");
    let (_, url) = url.context("this stack has no Alertmanager")?;
    url.trim_start_matches("http://").parse().context("read the address of Alertmanager")
}
