//! Every SQL statement of the stages and the runner, one file per table.
//!
//! Functions take the session they are given, start no transaction and decide nothing. Each statement says which
//! operation it is, and is timed as that.

pub(crate) mod operations;
pub(crate) mod session;
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
