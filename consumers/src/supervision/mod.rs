//! What connects the pipeline with the supervision of orders in Temporal (crate `workflows`): how messages get there, what
//! its activities find in Postgres and write to the topic `saga`, and which orders need it.

pub mod options;
pub mod worker;
pub(crate) mod mailboxes;
pub(crate) mod outlet;
mod sweep;
mod world;
