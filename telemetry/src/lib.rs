//! What every process of the pipeline does the same way: logs, traces, metrics, the admin server, shutdown, crash points.
//!
//! Knows nothing of Kafka, SQL or orders.

pub mod admin;
pub mod crash_point;
pub mod logs;
pub mod metrics;
pub mod secret;
pub mod shutdown;
pub mod traces;

pub use admin::{AdminArgs, Readiness};
pub use metrics::Metrics;
pub use secret::Secret;
pub use shutdown::Shutdown;
pub use traces::{TraceContext, Tracer};
