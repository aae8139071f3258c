//! What Alertmanager sends to a webhook, as far as anybody here reads it.

use std::collections::BTreeMap;

use serde::Deserialize;

pub(crate) type Labels = BTreeMap<String, String>;

/// A message: alerts that are grouped.
#[derive(Deserialize)]
pub(crate) struct Notification {
    pub(crate) alerts: Vec<Alert>,
}

#[derive(Deserialize)]
pub(crate) struct Alert {
    /// `firing` or `resolved`.
    pub(crate) status: String,
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) annotations: Labels,
}
