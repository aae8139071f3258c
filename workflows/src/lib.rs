//! Temporal's side of the pipeline: one workflow per order watches its deadlines and sees it through to an end.
//!
//! Orders are choreographed over Kafka and get on without this crate. Supervision hears of every event by a signal, steps in
//! when a step is overdue or an order has to be undone, asks the stages by events on the topic `saga`, and closes when
//! what it asked for is confirmed. It never decides how an order ends: the shipping stage arbitrates between
//! shipping and cancelling, and the workflow asks for nothing to be undone before it knows the verdict.
//!
//! * [`facts`]: what is known about an order; joins in any order, any number of times.
//! * [`decide`]: the rules, as a pure function from what is known to the next step.
//! * [`order_workflow`]: the workflow around them; deterministic, so that any worker can take it over.
//! * [`saga`]: the requests as events, under derived ids.
//! * [`activities`]: what the workflow does to the [`World`], repeated until it succeeds.
//! * [`connection`]: where Temporal is, by its own standard variables.
//! * [`signals`]: the [`Supervisor`], which tells workflows what happened and says how they stand.
//! * [`trace`]: how an order's trace goes through all this.
//! * [`worker`]: the process that runs it.
//!
//! Knows neither Kafka nor Postgres: a worker is given a [`World`] that does.
//!
//! Changing [`order_workflow`], [`decide`] or [`facts`] changes what workflows do that are open now. The recorded histories in
//! `tests/histories` must still replay; where they cannot, the change goes behind `context.patched("…")`.
//! `RECORD=1 cargo test --release -p workflows` records them afresh, once no workflow of before is open.

pub mod facts;
pub mod decide;
pub mod saga;
pub mod activities;
pub mod order_workflow;
pub mod connection;
mod exporter;
pub mod signals;
pub mod trace;
pub mod worker;

pub use activities::{ActivityMetrics, World};
pub use connection::Settings;
pub use decide::Deadlines;
pub use facts::{Fact, FactKind, Facts, Status};
pub use order_workflow::{OrderWorkflow, Outcome, Report, Start};
pub use saga::SagaEvent;
pub use signals::{DeadlineArgs, SignalError, Standing, Supervisor, SupervisorOptions, Told};
pub use worker::WorkerArgs;
