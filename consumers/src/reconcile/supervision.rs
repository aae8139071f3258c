//! The workflows of the orders: each order that is supervised has one, and it closed with the status that everyone else tells.

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};
use schemas::{EventType, OrderId};
use serde::Serialize;
use workflows::signals::{Closing, Supervised};
use workflows::{Standing, Supervisor};

use super::ledger::Facts;
use super::rules::{Broken, Kind, fate};
use super::states::Status;

/// Calls to Temporal at once.
const CALLS: usize = 16;

/// How an order's workflow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workflow {
    Open,
    Closed(Status),
    /// Ended by something else than itself.
    Broken,
}

/// Which orders have to have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    All,
    /// Those that are cancelled, declined or cannot be shipped.
    Exceptions,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) closed: u64,
    pub(super) open: u64,
}

/// Reads how every workflow stands. Visibility may be behind: what it calls open is only taken for open.
pub(super) async fn read(supervisor: &Supervisor) -> anyhow::Result<Vec<(OrderId, Workflow)>> {
    let listed = supervisor.open_and_closed().await.context("listing workflows")?;
    let asked = listed.into_iter().map(|supervised| async move {
        anyhow::Ok((supervised.order, stands(supervisor, supervised).await?))
    });
    stream::iter(asked).buffer_unordered(CALLS).try_collect().await
}

async fn stands(supervisor: &Supervisor, supervised: Supervised) -> anyhow::Result<Workflow> {
    match supervised.closed {
        None => return Ok(Workflow::Open),
        Some(Closing::Completed) => {}
        Some(_) => return Ok(Workflow::Broken),
    }
    let standing = supervisor.status(supervised.order).await;
    Ok(match standing.context("reading the result of a workflow")? {
        Standing::Closed(status) => Workflow::Closed(Status::parse(status.as_str())?),
        Standing::Open(_) => Workflow::Open,
        Standing::Broken | Standing::Unknown => Workflow::Broken,
    })
}

/// What disagrees about an order's workflow. Wrong at any time.
pub(super) fn disagreements(order: &Facts) -> impl Iterator<Item = Broken> {
    let ended = fate(order);
    let stands = match order.workflow {
        Some(Workflow::Closed(status)) if ended.is_some_and(|ended| ended != status) => {
            Some((Kind::Mismatched, "its workflow closed with another status"))
        }
        Some(Workflow::Broken) => {
            Some((Kind::Mismatched, "its workflow was ended by something else than itself"))
        }
        _ => None,
    };
    let twice = order.workflow_twice.then_some((Kind::Duplicated, "two workflows"));
    stands.into_iter().chain(twice)
}

/// What is not there yet.
pub(super) fn gaps(order: &Facts, expected: Expected) -> Option<Broken> {
    let told = |event_type| order.told(event_type);
    let exceptional = told(EventType::CancelRequested)
        || told(EventType::PaymentDeclined)
        || told(EventType::ShipmentFailed);
    match order.workflow {
        None if expected == Expected::All || exceptional => Some((Kind::Lost, "no workflow")),
        Some(Workflow::Open) => Some((Kind::Lost, "its workflow is open")),
        _ => None,
    }
}
