//! Drives the pipeline from outside: the real programs on real servers, orders over HTTP, faults, and the auditor's word
//! at the end. Serves the demo, the tests and the load runs.
//!
//! Touches nothing that a client or an operator could not touch as well.

pub mod eventually;
pub mod process;
pub mod pipeline;
pub mod orders;
pub mod records;
mod signals;
mod usage;
pub mod demo;
pub mod bench;
pub mod targets;
pub mod run;
mod notification;
mod scene;
pub mod alerts;
pub mod boards;
