//! The servers that exist: one line each. A new server is a file in `servers/` and a line here.

use anyhow::{Result, bail};

use crate::options::Settings;
use crate::server::Server;
use crate::servers::{alertmanager, postgres_exporter, prometheus, pushgateway};
use crate::servers::{kafka, postgres, temporal};

type Instances = fn(&Settings) -> Vec<Box<dyn Server>>;

const CATALOGUE: &[(&str, Instances)] = &[
    ("kafka", kafka::instances),
    ("postgres", postgres::instances),
    ("temporal", temporal::instances),
];

/// Come up only when they are asked for: most tests and benches have nobody who would look.
const WATCHERS: &[(&str, Instances)] = &[
    ("prometheus", prometheus::instances),
    ("alertmanager", alertmanager::instances),
    ("pushgateway", pushgateway::instances),
    ("postgres-exporter", postgres_exporter::instances),
];

/// All of the watchers, by one name.
pub const MONITORING: &str = "monitoring";

/// Every kind of server there is.
pub fn kinds() -> Vec<&'static str> {
    CATALOGUE.iter().chain(WATCHERS).map(|(kind, _)| *kind).collect()
}

/// What a caller may name: every kind, and [`MONITORING`].
pub fn choices() -> Vec<&'static str> {
    kinds().into_iter().chain([MONITORING]).collect()
}

/// Every server of the kinds in `only`, or else of those that do not just watch; and those of `with` besides.
pub(crate) fn select(
    settings: &Settings,
    only: &[String],
    with: &[String],
) -> Result<Vec<Box<dyn Server>>> {
    let asked = || only.iter().chain(with);
    if let Some(unknown) = asked().find(|name| !choices().contains(&name.as_str())) {
        bail!("no kind of server is called {unknown}; there is {}", choices().join(", "));
    }
    let named = |kind: &str| asked().any(|name| name == kind);
    let usual = CATALOGUE.iter().filter(|(kind, _)| only.is_empty() || named(kind));
    let watchers = WATCHERS.iter().filter(|(kind, _)| named(kind) || named(MONITORING));
    Ok(usual.chain(watchers).flat_map(|(_, instances)| instances(settings)).collect())
}

/// Every server that a stack with these settings may have.
pub(crate) fn all(settings: &Settings) -> Vec<Box<dyn Server>> {
    CATALOGUE.iter().chain(WATCHERS).flat_map(|(_, instances)| instances(settings)).collect()
}
