//! What a fault is: how something is broken and mended, which alerts must tell of it, and which may follow.

use futures::future::LocalBoxFuture;

use super::proof::Proof;
use crate::scene::Scene;

/// An alert that must arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) alert: &'static str,
    /// Labels it must carry; a value may have anything before it, such as a pipeline's prefix.
    pub(super) labels: &'static [(&'static str, &'static str)],
}

/// An alert that follows from a fault without being what it is there to prove, and why.
pub(super) type Follows = (&'static str, &'static str);

/// Breaks something, holds it broken until [`Proof::arrives`] returns, and mends it.
pub(super) type Strike =
    for<'a> fn(&'a Scene, &'a Proof<'a>) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// One fault.
pub(super) struct Fault {
    /// What is done, in a few words.
    pub(super) what: &'static str,
    pub(super) proves: &'static [Expected],
    pub(super) follows: &'static [Follows],
    /// Whether it needs orders with workflows.
    pub(super) temporal: bool,
    /// Whether the dead man at the end of Watchdog may miss it meanwhile.
    pub(super) deafens: bool,
    pub(super) strike: Strike,
}

impl Fault {
    pub(super) fn proves(&self, alert: &str) -> bool {
        self.proves.iter().any(|expected| expected.alert == alert)
    }

    pub(super) fn allows(&self, alert: &str) -> bool {
        self.proves(alert) || self.follows.iter().any(|(name, _)| *name == alert)
    }
}

pub(super) const fn alert(
    alert: &'static str,
    labels: &'static [(&'static str, &'static str)],
) -> Expected {
    Expected { alert, labels }
}
