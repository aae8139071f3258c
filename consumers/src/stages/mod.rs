//! The catalogue of stages. A new stage is a file here, its `mod` line and its line in [`CATALOGUE`]; metrics, lag,
//! alerts, dashboard panels, dead letters and the command line follow from its name.

use schemas::{EventType, Topic};

use crate::config::StageConfig;
use crate::runner::{self, Running, StageContext};
use crate::stage::Stage;

mod inventory;
mod payment;
mod shipping;
mod order;
mod workflow;

/// Every stage, in the order in which an order meets them.
pub const CATALOGUE: &[Entry] = &[
    Entry::of::<inventory::Inventory>(),
    Entry::of::<payment::Payment>(),
    Entry::of::<shipping::Shipping>(),
    Entry::of::<order::Order>(),
    Entry::of::<workflow::Workflow>(),
];

/// A stage as the rest of the program sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The event types it acts on.
    pub inputs: &'static [EventType],
    /// The topic it writes.
    pub output: Option<Topic>,
    start: fn(&StageConfig, StageContext) -> anyhow::Result<Running>,
}

impl Entry {
    const fn of<S: Stage>() -> Self {
        Self { name: S::NAME, inputs: S::INPUTS, output: S::OUTPUT, start: runner::start::<S> }
    }

    /// Starts it.
    pub fn start(&self, config: &StageConfig, context: StageContext) -> anyhow::Result<Running> {
        (self.start)(config, context)
    }

    /// The topics it reads.
    pub fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.inputs.iter().map(|input| input.topic()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

/// The stage called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_stage_file_is_in_the_catalogue_under_its_own_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .filter(|name| name != "mod")
            .collect();
        let names: BTreeSet<String> = CATALOGUE.iter().map(|entry| entry.name.to_owned()).collect();

        assert_eq!(names, files);
        assert_eq!(names.len(), CATALOGUE.len(), "two stages share a name");
    }

    #[test]
    fn every_topic_has_one_writer() {
        let outputs: Vec<Topic> = CATALOGUE.iter().filter_map(|entry| entry.output).collect();

        let distinct: BTreeSet<Topic> = outputs.iter().copied().collect();

        assert_eq!(distinct.len(), outputs.len());
    }
}
