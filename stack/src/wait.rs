//! Waiting for a condition, with a deadline and an interrupt. Nothing here sleeps for a fixed time
//! in the hope that something has happened meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A flag that a signal handler trips and long operations look at.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn trip(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_tripped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_tripped() {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// Short enough that a start is not noticeably longer, long enough to leave the cores to the server.
const POLL: Duration = Duration::from_millis(40);

/// Asks until `condition` yields a value; `None` when `limit` has passed first.
pub(crate) fn until<T>(
    limit: Duration,
    interrupt: &Interrupt,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        interrupt.check()?;
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}
