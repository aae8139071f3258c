//! What one request asks the projection, each question recorded as a part of it.
//!
//! What long polls wait for is asked by one query for all of them, and belongs to no request (`waiters.rs`).

use std::future::Future;

use schemas::OrderId;
use telemetry::{TraceContext, Tracer};
use tokio::time::Instant;

use super::Reads;
use crate::projection::{self, EventView, OrderView, Page};
use crate::spans::Select;
use crate::waiters::{TooMany, Until};

/// Asks for one request.
pub(super) struct Asking<'a> {
    pub(super) reads: &'a Reads,
    pub(super) tracer: &'a Tracer,
    pub(super) request: TraceContext,
}

impl Asking<'_> {
    pub(super) async fn order(&self, order: OrderId) -> sqlx::Result<Option<OrderView>> {
        self.recorded("orders", projection::order(&self.reads.pool, order)).await
    }

    pub(super) async fn orders(&self, page: Page) -> sqlx::Result<Vec<OrderView>> {
        self.recorded("orders", projection::orders(&self.reads.pool, page)).await
    }

    pub(super) async fn events(&self, order: OrderId) -> sqlx::Result<Vec<EventView>> {
        self.recorded("order_events", projection::events(&self.reads.pool, order)).await
    }

    pub(super) async fn wait(
        &self,
        order: OrderId,
        until: Until,
        deadline: Instant,
    ) -> Result<Option<OrderView>, TooMany> {
        self.reads.waiters.wait(order, until, deadline).await
    }

    async fn recorded<T>(
        &self,
        table: &'static str,
        answer: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let select = Select::begin(self.tracer, &self.request, &self.reads.pool, table);
        let answer = answer.await;
        select.ended(&answer);
        answer
    }
}
