//! The auditor's word on a pipeline: `order-consumer reconcile`, read by a program.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use schemas::Timestamp;
use serde::Deserialize;

use super::Pipeline;

/// What the auditor found.
#[derive(Clone, Debug, Deserialize)]
pub struct Audit {
    pub reconciled: bool,
    pub placed: u64,
    #[serde(rename = "final")]
    pub final_orders: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub phantom: u64,
    pub mismatched: u64,
    pub pending: u64,
    pub dead_lettered: u64,
    pub quiet: bool,
    /// Final orders by status.
    pub outcomes: BTreeMap<String, u64>,
    /// Workflows of the orders, where they were looked at.
    pub workflows: Option<Workflows>,
    pub findings: Vec<Finding>,
}

/// Workflows in Temporal.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Workflows {
    pub closed: u64,
    pub open: u64,
}

/// A rule that is broken.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub kind: String,
    pub what: String,
    pub count: u64,
    pub ids: Vec<String>,
}

impl Audit {
    /// Whether nothing is lost, nothing happened twice, and every place tells the same; orders may be held up by a dead
    /// letter.
    pub fn is_sound(&self) -> bool {
        self.lost + self.duplicated + self.phantom + self.mismatched == 0
    }

    /// Final orders of `status`.
    pub fn count(&self, status: &str) -> u64 {
        self.outcomes.get(status).copied().unwrap_or(0)
    }
}

impl Pipeline {
    /// Waits until every order has come to its end, at most `patience`, and audits.
    pub async fn audit(&self, patience: Duration) -> anyhow::Result<Audit> {
        self.audit_with(patience, &[]).await
    }

    /// The same for the orders placed at or after `since`.
    pub async fn audit_since(
        &self,
        patience: Duration,
        since_micros: i64,
    ) -> anyhow::Result<Audit> {
        let since = Timestamp::from_micros(since_micros).context("say since when")?.to_string();
        self.audit_with(patience, &["--since", &since]).await
    }

    async fn audit_with(&self, patience: Duration, more: &[&str]) -> anyhow::Result<Audit> {
        let wait = format!("{}s", patience.as_secs());
        let mut arguments = vec!["reconcile", "--json", "--wait", &wait];
        arguments.extend(more);
        // Workflows are looked at where there are any.
        arguments.extend(self.supervised.then_some("--workflows"));
        let output = self.try_tool(&arguments).await?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            format!(
                "read the report of the auditor, which ended with {} and said: {complaint}",
                output.status
            )
        })
    }

    /// Waits and audits for people: the report as text, its last line the verdict, and whether it is good.
    pub async fn audit_for_people(&self, patience: Duration) -> anyhow::Result<(String, bool)> {
        let wait = format!("{}s", patience.as_secs());
        let output = self
            .command(&self.binaries.consumer)
            .args(["reconcile", "--wait", &wait])
            .args(self.supervised.then_some("--workflows"))
            .stderr(std::process::Stdio::inherit())
            .output()
            .await
            .context("run the auditor")?;
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success()))
    }
}
