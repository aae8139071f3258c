//! The broker.

use futures::FutureExt;

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::scene::Scene;

pub(in crate::alerts) const FAULTS: &[Fault] = &[Fault {
    what: "the only broker is killed",
    proves: &[alert("KafkaBrokerDown", &[("job", "lag_exporter")])],
    follows: &[
        (
            "ErrorBudgetBurnFast",
            "the API takes no orders; told where it comes before KafkaBrokerDown",
        ),
        ("ConsumerLagHigh", "stages wait for it; told where it comes before KafkaBrokerDown"),
        ("ConsumerLagGrowing", "stages wait for it; told where it comes before KafkaBrokerDown"),
        ("ConsumerStuck", "stages wait for it; told where it comes before KafkaBrokerDown"),
        ("ThroughputDrop", "stages wait for it; told where it comes before KafkaBrokerDown"),
        ("OutboxStuck", "effects wait for it; told where it comes before KafkaBrokerDown"),
        ("HighOrderProcessingErrorRate", "telling effects is tried again and again"),
        ("SlowOrderProcessing", "orders that waited for it are final late"),
        ("RebalanceStorm", "members find each other again"),
    ],
    temporal: false,
    deafens: false,
    strike: |scene, proof| killed(scene, proof).boxed_local(),
}];

async fn killed(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.server(|stack| stack.kill("kafka")).await?;
    let arrived = proof.arrives(PATIENCE).await;
    scene.server(|stack| stack.restart("kafka")).await?;
    arrived
}
