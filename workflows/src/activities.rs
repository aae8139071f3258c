//! What the workflow does to the world: publish a request, look at what Postgres knows. Both are repeated by Temporal
//! until they succeed, so both must be harmless to repeat.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use schemas::OrderId;
use serde::{Deserialize, Serialize};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::decide::SagaRequest;
use crate::facts::Fact;
use crate::saga::SagaEvent;

/// What supervision reaches: a broker and a database in earnest, memory in tests.
pub trait World: Send + Sync {
    /// Publishes `event` to the topic `saga`, keyed by its order; returns when every in-sync replica has it.
    fn publish(&self, event: SagaEvent) -> BoxFuture<'_, anyhow::Result<()>>;

    /// The facts about `order` that Postgres holds; none for an order that it does not know.
    fn look(&self, order: OrderId) -> BoxFuture<'_, anyhow::Result<Vec<Fact>>>;
}

/// One attempt may take this long. Longer than any acknowledgement that still comes, so that an attempt that is given
/// up is rarely one that succeeds.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// The input of the activity `publish`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publication {
    /// The order.
    pub order_id: OrderId,
    /// What is asked for.
    pub request: SagaRequest,
}

/// The activities of a worker.
pub struct OrderActivities {
    /// Where they act.
    pub world: Arc<dyn World>,
    /// Who times them.
    pub metrics: ActivityMetrics,
}

#[activities]
impl OrderActivities {
    /// Publishes a request.
    #[activity(name = "publish")]
    pub async fn publish(
        self: Arc<Self>,
        _context: ActivityContext,
        publication: Publication,
    ) -> Result<(), ActivityError> {
        Ok(self.attempt_publish(publication).await.map_err(Failed)?)
    }

    /// Asks what is known.
    #[activity(name = "look")]
    pub async fn look(
        self: Arc<Self>,
        _context: ActivityContext,
        order: OrderId,
    ) -> Result<Vec<Fact>, ActivityError> {
        Ok(self.attempt_look(order).await.map_err(Failed)?)
    }
}

impl OrderActivities {
    async fn attempt_publish(&self, publication: Publication) -> anyhow::Result<()> {
        let Publication { order_id, request } = publication;
        let told = async {
            let event = SagaEvent::of(order_id, request).context("building the event")?;
            self.world.publish(event).await
        };
        self.metrics.time("publish", ATTEMPT_LIMIT, told).await
    }

    async fn attempt_look(&self, order: OrderId) -> anyhow::Result<Vec<Fact>> {
        self.metrics.time("look", ATTEMPT_LIMIT, self.world.look(order)).await
    }
}

/// An attempt that failed, with its causes in one line: Temporal shows it to people.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Failed(anyhow::Error);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    activity: &'static str,
    outcome: &'static str,
}

/// How long attempts take.
#[derive(Clone, Debug)]
pub struct ActivityMetrics {
    duration: Family<Labels, Histogram, fn() -> Histogram>,
}

impl ActivityMetrics {
    /// Registers the family; every series exists from the start.
    pub fn register(registry: &mut Registry) -> Self {
        let duration = Family::new_with_constructor(seconds as fn() -> Histogram);
        for activity in ["publish", "look"] {
            for outcome in ["ok", "failed", "timed_out"] {
                drop(duration.get_or_create(&Labels { activity, outcome }));
            }
        }
        registry.register_with_unit(
            "workflow_activity_duration",
            "Time that one attempt of a workflow's activity took, by outcome",
            Unit::Seconds,
            duration.clone(),
        );
        Self { duration }
    }

    async fn time<T>(
        &self,
        activity: &'static str,
        limit: Duration,
        attempt: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let result = tokio::time::timeout(limit, attempt).await;
        let outcome = match &result {
            Ok(Ok(_)) => "ok",
            Ok(Err(_)) => "failed",
            Err(_) => "timed_out",
        };
        let labels = Labels { activity, outcome };
        self.duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        result.with_context(|| format!("no answer in {limit:?}"))?
    }
}

/// From a read of one row to an attempt that is given up.
fn seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use schemas::saga::SagaReason;
    use schemas::{Event, EventType};

    use super::*;
    use crate::decide::RequestKind;

    #[derive(Default)]
    struct Memory {
        published: Mutex<Vec<SagaEvent>>,
        away: bool,
    }

    impl World for Memory {
        fn publish(&self, event: SagaEvent) -> BoxFuture<'_, anyhow::Result<()>> {
            Box::pin(async move {
                anyhow::ensure!(!self.away, "no broker");
                self.published.lock().unwrap().push(event);
                Ok(())
            })
        }

        fn look(&self, _: OrderId) -> BoxFuture<'_, anyhow::Result<Vec<Fact>>> {
            Box::pin(std::future::pending())
        }
    }

    fn activities(world: Arc<Memory>) -> (OrderActivities, Registry) {
        let mut registry = Registry::default();
        let metrics = ActivityMetrics::register(&mut registry);
        (OrderActivities { world, metrics }, registry)
    }

    fn count(registry: &Registry, activity: &str, outcome: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let series = format!(
            "workflow_activity_duration_seconds_count{{activity=\"{activity}\",outcome=\"{outcome}\"}} "
        );
        let line =
            text.lines().find(|line| line.starts_with(&series)).expect("the series is there");
        line[series.len()..].to_owned()
    }

    fn publication(kind: RequestKind, first_at_ms: u64) -> Publication {
        let request =
            crate::decide::SagaRequest { kind, reason: SagaReason::DeadlineExceeded, first_at_ms };
        Publication { order_id: OrderId(uuid::Uuid::from_u128(7)), request }
    }

    #[tokio::test]
    async fn a_repeated_publication_is_the_same_event_and_others_differ() {
        let world = Arc::new(Memory::default());
        let (activities, registry) = activities(world.clone());

        for kind in [RequestKind::Refund, RequestKind::Refund, RequestKind::OrderCancelled] {
            activities.attempt_publish(publication(kind, 1_800_000_000_000)).await.unwrap();
        }

        let published = world.published.lock().unwrap();
        assert_eq!(published[0], published[1]);
        assert_ne!(published[1].id, published[2].id);
        assert_eq!(published[0].event.event_type(), EventType::RefundRequested);
        let Event::OrderCancelled(data) = &published[2].event else { panic!("{published:?}") };
        assert_eq!(data.reason, SagaReason::DeadlineExceeded);
        assert_eq!(count(&registry, "publish", "ok"), "3");
    }

    #[tokio::test]
    async fn a_broker_that_is_away_is_an_error_that_says_so() {
        let (activities, registry) =
            activities(Arc::new(Memory { away: true, ..Memory::default() }));

        let error = activities.attempt_publish(publication(RequestKind::Refund, 1_800_000_000_000));

        assert_eq!(Failed(error.await.unwrap_err()).to_string(), "no broker");
        assert_eq!(count(&registry, "publish", "failed"), "1");
        assert_eq!(count(&registry, "publish", "ok"), "0");
    }

    #[tokio::test]
    async fn a_database_that_hangs_is_given_up() {
        let world = Arc::new(Memory::default());
        let (activities, registry) = activities(world.clone());
        let asked = world.look(OrderId(uuid::Uuid::nil()));

        let error = activities.metrics.time("look", Duration::from_millis(20), asked).await;

        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("no answer in"), "{error}");
        assert_eq!(count(&registry, "look", "timed_out"), "1");
    }
}
