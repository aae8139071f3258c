//! Places where a test may kill or freeze the process from outside: `CRASH_AT=payment.after_commit:kill:3`.
//!
//! Proof of the delivery protocol needs death at every step of it, in the program that ships. Without the variable a
//! point costs one atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// Longer than a busy machine takes to stop a process.
const STOP_TAKES: Duration = Duration::from_millis(500);

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    point: String,
    signal: Signal,
    /// Passages until it strikes.
    left: AtomicU64,
}

/// Dies here when `CRASH_AT` names `<component>.<point>`. Form: `component.point[:kill|stop[:nth passage]]`.
pub fn crash_point(component: &str, point: &str) {
    let Some(armed) = ARMED.get_or_init(from_environment) else { return };
    let here = armed
        .point
        .strip_prefix(component)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|name| name == point);
    // The counter stops at zero, so a frozen and continued process strikes once.
    let strike = here
        && armed.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            == Ok(1);
    if strike {
        tracing::warn!(component, point, "crash point reached");
        if let Err(error) = kill_process(getpid(), armed.signal) {
            tracing::error!(%error, "the crash point could not signal its own process");
        }
        if armed.signal == Signal::STOP {
            // A stop takes effect once some thread gets to it; this one must not run on until then.
            std::thread::sleep(STOP_TAKES);
        }
    }
}

fn from_environment() -> Option<Armed> {
    let text = std::env::var("CRASH_AT").ok()?;
    let mut parts = text.split(':');
    let point = parts.next()?.to_owned();
    let signal = match parts.next() {
        None | Some("kill") => Signal::KILL,
        Some("stop") => Signal::STOP,
        Some(other) => {
            tracing::error!(action = other, "CRASH_AT wants kill or stop; ignored");
            return None;
        }
    };
    let left = parts.next().map_or(Some(1), |n| n.parse().ok())?;
    Some(Armed { point, signal, left: AtomicU64::new(left) })
}
