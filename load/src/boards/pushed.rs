//! A load run as others see it: what `order-load run` pushes when it begins and when it ends, about the orders placed here.

use std::collections::BTreeMap;

use anyhow::Context;
use schemas::Timestamp;

use crate::pipeline::{FINAL, Fate};
use crate::run::monitoring::Monitoring;
use crate::run::observed::{Drain, Lag, Observed, Quantiles};
use crate::scene::Scene;

/// Tells that a run begins; answers its id.
pub(super) async fn begin(scene: &Scene) -> anyhow::Result<String> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let run = format!("boards-{}", &id[..8]);
    monitoring(scene)?.begun(&run, Timestamp::now()).await?;
    Ok(run)
}

/// Tells what came of it, and returns when Prometheus has read it.
pub(super) async fn end(
    scene: &Scene,
    run: &str,
    client_seconds: Vec<f64>,
    fates: Vec<Fate>,
) -> anyhow::Result<()> {
    let accepted = client_seconds.len() as u64;
    let mut completed = BTreeMap::new();
    for fate in fates.iter().filter(|fate| FINAL.contains(&fate.status.as_str())) {
        *completed.entry(fate.status.clone()).or_insert(0) += 1;
    }
    let to_final = fates.iter().filter_map(|fate| fate.seconds).collect();
    let client = Quantiles::of(client_seconds);
    let mut lag = BTreeMap::new();
    let peaks = "max_over_time(stage:kafka_consumergroup_lag_seconds:max[1m])";
    for peak in scene.prometheus.instant(peaks, crate::scene::prometheus::now()).await? {
        let seconds = peak.values.first().map_or(0.0, |(_, seconds)| *seconds);
        lag.insert(peak.label("stage").to_owned(), Lag { records: 0.0, seconds });
    }
    let seen = Observed {
        offered: accepted,
        sent: accepted,
        orders_sent: accepted,
        accepted,
        open: accepted.saturating_sub(completed.values().sum()),
        completed,
        client,
        answered: client,
        to_final: Quantiles::of(to_final),
        lag,
        drain: Drain { seconds: 1.0, ended: true },
        ..Observed::default()
    };
    monitoring(scene)?.ended(run, Timestamp::now(), &seen, true).await
}

fn monitoring(scene: &Scene) -> anyhow::Result<Monitoring> {
    let environment = scene.stack.env()?;
    let url = |wanted: &str| {
        let found = environment.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, url)| url.as_str()).with_context(|| format!("this stack has no {wanted}"))
    };
    Monitoring::new(url("PROMETHEUS_URL")?, Some(url("PUSHGATEWAY_URL")?))
}
