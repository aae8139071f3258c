//! Those that watch: targets that are forgotten, labels that get out of hand, configurations that do not load, messages that
//! nobody takes.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, ensure};
use futures::FutureExt;
use reqwest::Method;
use stack::Signal;

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::scene::Scene;

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "a job loses its targets",
        proves: &[alert("JobGone", &[("job", "lag_exporter")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| forgotten(scene, proof).boxed_local(),
    },
    Fault {
        what: "a job pushes a series per order",
        proves: &[alert("ScrapeLimited", &[]), alert("TargetDown", &[("job", "pushgateway")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| loud(scene, proof).boxed_local(),
    },
    Fault {
        what: "Prometheus is given a bad configuration",
        proves: &[alert("PrometheusConfigBad", &[])],
        follows: &[(
            "PrometheusNotifying",
            "before 3.0 Prometheus drops alerts for up to five seconds after it has loaded a configuration: minutes, in \
             faster time",
        )],
        temporal: false,
        deafens: false,
        strike: |scene, proof| {
            misconfigured(scene, proof, "prometheus", "prometheus.yml").boxed_local()
        },
    },
    Fault {
        what: "a job pushes a series of our name",
        proves: &[alert("PrometheusRuleFailures", &[("rule_group", ";slo-alerts")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| impostor(scene, proof).boxed_local(),
    },
    Fault {
        what: "Alertmanager is given a bad configuration",
        proves: &[alert("AlertmanagerConfigBad", &[])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| {
            misconfigured(scene, proof, "alertmanager", "alertmanager.yml").boxed_local()
        },
    },
    Fault {
        what: "the dead man refuses his messages",
        proves: &[alert("AlertmanagerNotificationsFailing", &[("integration", "webhook")])],
        follows: &[],
        temporal: false,
        deafens: true,
        strike: |scene, proof| refused(scene, proof).boxed_local(),
    },
];

async fn forgotten(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let address = scene.lag_exporter.lock().await.admin();
    scene.targets("lag_exporter", &[])?;
    let arrived = proof.arrives(PATIENCE).await;
    scene.targets("lag_exporter", &[address])?;
    arrived
}

async fn loud(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut text = String::from("# TYPE loud_orders gauge\n");
    for order in 0..25_000 {
        writeln!(text, "loud_orders{{order=\"{order}\"}} 1")?;
    }
    let status = scene.push(Method::PUT, "loud", text).await?;
    ensure!(status == 200, "the Pushgateway answered {status}");
    let arrived = proof.arrives(PATIENCE).await;
    scene.push(Method::DELETE, "loud", String::new()).await?;
    arrived
}

async fn misconfigured(
    scene: &Scene,
    proof: &Proof<'_>,
    server: &'static str,
    file: &str,
) -> anyhow::Result<()> {
    let path = scene.stack.data_dir(server)?.join(file);
    let good = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let reload = |text: String| {
        let path = path.clone();
        // The file stays its owner's: only what is in it changes.
        scene.server(move |stack| {
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            stack.signal(server, Signal::Hup)
        })
    };
    reload(format!("{good}\nno_such_key: true\n")).await?;
    let arrived = proof.arrives(PATIENCE).await;
    reload(good.clone()).await?;
    arrived
}

/// Two values for one objective: what joins on it can no longer be evaluated.
async fn impostor(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let text = "slo:error_budget:ratio{slo=\"api-latency\"} 0.5\n".to_owned();
    let status = scene.push(Method::PUT, "impostor", text).await?;
    ensure!(status == 200, "the Pushgateway answered {status}");
    let arrived = proof.arrives(PATIENCE).await;
    scene.push(Method::DELETE, "impostor", String::new()).await?;
    arrived
}

async fn refused(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.receiver.refuse(Some("deadman"));
    let arrived = proof.arrives(PATIENCE).await;
    scene.receiver.refuse(None);
    arrived
}
