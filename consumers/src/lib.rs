//! Everything that takes orders through the pipeline: the stage runtime, the stages, and the tools around them.

pub mod stage;
pub mod stages;
pub mod runner;
pub mod config;
pub mod payment_gateway;
pub mod carrier;
pub mod reconcile;
pub mod run;
pub mod migrate;
pub mod topics;
pub mod stock;
pub mod status;
pub mod lag_exporter;
pub mod dead_letters;
pub mod progress_tool;
pub mod supervision;
mod broker;
mod standings;
mod indicator;
mod outside;
mod store;
#[cfg(test)]
mod test_database;
