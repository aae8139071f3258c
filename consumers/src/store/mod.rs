//! Every SQL statement of the stages and the runner, one file per table.
//!
//! Functions take the connection they are given, start no transaction and decide nothing.

pub(crate) mod types;
pub(crate) mod binary_copy;
pub(crate) mod progress;
pub(crate) mod outbox;
pub(crate) mod dead_letters;
pub(crate) mod stock;
pub(crate) mod reservations;
pub(crate) mod payments;
pub(crate) mod shipments;
pub(crate) mod orders;
pub(crate) mod supervision;
