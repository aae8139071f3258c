//! Real servers on one machine, without a container engine: install, start, wait, break, stop.
//!
//! Owns everything below one state directory. Promises that a server reported as up has answered a
//! real request, that only processes started here are ever signalled, and that `down` leaves neither
//! a process nor a file. Knows nothing of orders, topics or tables.
//!
//! The calls block: from async code, wrap them in `spawn_blocking`.

mod options;
mod stack;
mod status;
mod catalogue;
mod server;
mod servers;
mod go;
mod http;
mod install;
mod placement;
mod ports;
mod process;
mod progress;
mod state;
mod wait;
mod wheel;

pub use catalogue::{MONITORING, choices, kinds};
pub use go::go;
pub use options::{Ports, StackOptions};
pub use ports::free as free_ports;
pub use process::Signal;
pub use progress::Progress;
pub use servers::shortened::shortened;
pub use stack::{Down, Stack, install};
pub use status::{Condition, ServerStatus, table};
pub use wait::Interrupt;
