//! Finds orders that are not final in time and gives them a workflow (`--supervise exceptions`).
//!
//! Several workers may sweep at once: a workflow that exists is signalled, not started twice. An order is noted as
//! supervised only after its workflow was told, so a crash in between repeats and forgets nothing.

use std::time::Duration;

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use schemas::{EventId, EventType, Timestamp};
use sqlx::PgPool;
use telemetry::Shutdown;
use workflows::{Fact, FactKind, Supervisor};

use crate::store::operations::OperationTimes;
use crate::store::session::Session;
use crate::store::supervision::{self, Overdue};

/// Orders looked up at a time.
const PAGE: i64 = 500;

/// Orders enter the projection some time after they were placed: each sweep looks this far back behind the last one.
const OVERLAP: Duration = Duration::from_secs(3600);

/// What a sweep needs.
pub(super) struct Sweep {
    pub(super) grace: Duration,
    pub(super) database: PgPool,
    pub(super) supervisor: Supervisor,
    pub(super) metrics: SweepMetrics,
    pub(super) operations: OperationTimes,
}

/// What sweeps found.
#[derive(Clone, Debug, Default)]
pub(super) struct SweepMetrics {
    overdue: Counter,
}

impl SweepMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "orders_overdue",
            "Orders that were not final within the grace time and got a workflow",
            metrics.overdue.clone(),
        );
        metrics
    }
}

impl Sweep {
    /// Sweeps until shutdown. What goes wrong is said and tried again.
    pub(super) async fn run(self, shutdown: Shutdown) {
        // An order is found at most a tenth of the grace time late.
        let pause = (self.grace / 10).clamp(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            if let Err(error) = self.once().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "looking for overdue orders failed; trying again"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.wait() => return,
            }
        }
    }

    async fn once(&self) -> anyhow::Result<()> {
        let until = before(Timestamp::now(), self.grace)?;
        let swept = {
            let mut db = self.database.acquire().await.context("connecting to Postgres")?;
            let mut db = Session::new(&mut db, &self.operations);
            supervision::swept_until(&mut db).await.context("reading supervision_sweeps")?
        };
        let mut from = match swept {
            Some(swept) => before(swept.min(until), OVERLAP)?,
            None => before(until, OVERLAP)?,
        };
        loop {
            let found = self.page(from, until).await?;
            let Some(last) = found.last().filter(|_| found.len() as i64 == PAGE) else { break };
            // Those found have a workflow now, so the next page begins with others.
            from = last.placed_at;
        }
        let mut db = self.database.acquire().await.context("connecting to Postgres")?;
        let mut db = Session::new(&mut db, &self.operations);
        supervision::sweep_to(&mut db, until).await.context("writing supervision_sweeps")
    }

    async fn page(&self, from: Timestamp, until: Timestamp) -> anyhow::Result<Vec<Overdue>> {
        let mut db = self.database.acquire().await.context("connecting to Postgres")?;
        let mut db = Session::new(&mut db, &self.operations);
        let found = supervision::overdue(&mut db, from, until, PAGE)
            .await
            .context("looking for overdue orders")?;
        for order in &found {
            let id = EventId::opening(order.order_id, EventType::OrderPlaced.as_str());
            let placed = Fact { id: id.0, kind: FactKind::OrderPlaced, reason: None };
            self.supervisor.tell(order.order_id, &[placed]).await.context("starting a workflow")?;
            supervision::add(&mut db, &[order.order_id.0])
                .await
                .context("writing supervised_orders")?;
            self.metrics.overdue.inc();
            tracing::info!(
                order_id = %order.order_id,
                "order {} is overdue; its workflow looks after it",
                order.order_id
            );
        }
        Ok(found)
    }
}

fn before(time: Timestamp, duration: Duration) -> anyhow::Result<Timestamp> {
    let micros = i64::try_from(duration.as_micros()).context("too long a duration")?;
    Timestamp::from_micros(time.as_micros().saturating_sub(micros))
        .context("a time before all times")
}
