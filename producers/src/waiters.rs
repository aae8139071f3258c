//! Lets requests wait until the projection knows an order, or knows its end.
//!
//! One task asks for all of them together, so the cost to Postgres depends on time and not on how many wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::OrderId;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::projection::{self, OrderView};

/// Pause between two looks: a waiting client hears of the end this much late at most.
const PERIOD: Duration = Duration::from_millis(50);
/// The same while Postgres does not answer.
const PERIOD_IN_TROUBLE: Duration = Duration::from_secs(1);
/// Most ids in one query.
const IDS_PER_QUERY: usize = 1_000;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The projection knows the order.
    Known,
    /// The order's status is final.
    Final,
}

/// More requests wait than may.
#[derive(Debug, thiserror::Error)]
#[error("too many requests wait for an order")]
pub struct TooMany;

/// Where requests wait. Clones share one task, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Waiters {
    places: Arc<Semaphore>,
    arrivals: mpsc::UnboundedSender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    order: OrderId,
    until: Until,
    found: oneshot::Sender<OrderView>,
}

impl Waiters {
    /// Starts the task; at most `places` requests wait at a time.
    pub fn start(pool: PgPool, places: usize) -> Self {
        let (arrivals, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(pool, queue));
        Self { places: Arc::new(Semaphore::new(places)), arrivals }
    }

    /// Waits for `order`. `None` when `deadline` comes first.
    pub async fn wait(
        &self,
        order: OrderId,
        until: Until,
        deadline: Instant,
    ) -> Result<Option<OrderView>, TooMany> {
        let _place = self.places.try_acquire().map_err(|_| TooMany)?;
        let (found, view) = oneshot::channel();
        if self.arrivals.send(Waiting { order, until, found }).is_err() {
            return Ok(None);
        }
        Ok(timeout_at(deadline, view).await.ok().and_then(Result::ok))
    }
}

async fn run(pool: PgPool, mut arrivals: mpsc::UnboundedReceiver<Waiting>) {
    let mut waiting: HashMap<Uuid, Vec<Waiting>> = HashMap::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = arrivals.recv().await else { return };
            waiting.entry(first.order.0).or_default().push(first);
        }
        while let Ok(next) = arrivals.try_recv() {
            waiting.entry(next.order.0).or_default().push(next);
        }
        let pause = match look(&pool, &mut waiting).await {
            Ok(()) => PERIOD,
            Err(error) => {
                tracing::warn!(%error, "waiting requests could not be looked up");
                PERIOD_IN_TROUBLE
            }
        };
        sleep(pause).await;
        waiting.retain(|_, group| {
            group.retain(|one| !one.found.is_closed());
            !group.is_empty()
        });
    }
}

async fn look(pool: &PgPool, waiting: &mut HashMap<Uuid, Vec<Waiting>>) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = waiting.keys().copied().collect();
    for ids in ids.chunks(IDS_PER_QUERY) {
        let any_status: Vec<Uuid> = ids
            .iter()
            .filter(|id| waiting[*id].iter().any(|one| one.until == Until::Known))
            .copied()
            .collect();
        for view in projection::orders_ready(pool, ids, &any_status).await? {
            let Some(group) = waiting.remove(&view.order_id) else { continue };
            let (served, rest): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|one| view.is_final || one.until == Until::Known);
            for one in served {
                // Whoever waited may be gone.
                drop(one.found.send(view.clone()));
            }
            if !rest.is_empty() {
                waiting.insert(view.order_id, rest);
            }
        }
    }
    Ok(())
}
