//! The servers that exist: one line each. A new server is a file in `servers/` and a line here.

use anyhow::{Result, bail};

use crate::options::Settings;
use crate::server::Server;
use crate::servers::{kafka, postgres, temporal};

type Instances = fn(&Settings) -> Vec<Box<dyn Server>>;

const CATALOGUE: &[(&str, Instances)] = &[
    ("kafka", kafka::instances),
    ("postgres", postgres::instances),
    ("temporal", temporal::instances),
];

/// The kinds that `only` chooses from.
pub fn kinds() -> Vec<&'static str> {
    CATALOGUE.iter().map(|(kind, _)| *kind).collect()
}

/// Every server of the chosen kinds; of all kinds when none is chosen.
pub(crate) fn select(settings: &Settings, only: &[String]) -> Result<Vec<Box<dyn Server>>> {
    if let Some(unknown) = only.iter().find(|kind| !kinds().contains(&kind.as_str())) {
        bail!("no kind of server is called {unknown}; there is {}", kinds().join(", "));
    }
    let chosen =
        CATALOGUE.iter().filter(|(kind, _)| only.is_empty() || only.iter().any(|o| o == kind));
    Ok(chosen.flat_map(|(_, instances)| instances(settings)).collect())
}
