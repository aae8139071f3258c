//! The events that supervision asks the stages by. Their ids are derived from the order, so a request that is
//! repeated, by a retry, another worker or a workflow that was reset, is recognisable by its id alone.

use schemas::saga::{OrderCancelled, RefundRequested, StockReleaseRequested};
use schemas::{Event, EventId, EventType, OrderId, Timestamp};

use crate::decide::{RequestKind, SagaRequest};

/// What the workflow calls itself where stages give their names.
pub const SOURCE: &str = "order-workflow";

/// An event for the topic `saga`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaEvent {
    /// The same for every repeat.
    pub id: EventId,
    /// The event that opened the order.
    pub cause: EventId,
    /// When it was first asked for.
    pub occurred_at: Timestamp,
    /// The request.
    pub event: Event,
}

impl SagaEvent {
    /// The event of `request`. Fails only for a time that no event may carry.
    pub fn of(
        order_id: OrderId,
        request: SagaRequest,
    ) -> Result<Self, schemas::time::InvalidTimestamp> {
        let reason = request.reason;
        let event = match request.kind {
            RequestKind::StockRelease => {
                Event::StockReleaseRequested(StockReleaseRequested { order_id, reason })
            }
            RequestKind::Refund => Event::RefundRequested(RefundRequested { order_id, reason }),
            RequestKind::OrderCancelled => {
                Event::OrderCancelled(OrderCancelled { order_id, reason })
            }
        };
        let cause = EventId::opening(order_id, EventType::OrderPlaced.as_str());
        let micros = i64::try_from(request.first_at_ms).unwrap_or(i64::MAX).saturating_mul(1000);
        Ok(Self {
            id: EventId::derived(cause, SOURCE, event.event_type().as_str(), 0),
            cause,
            occurred_at: Timestamp::from_micros(micros)?,
            event,
        })
    }
}
