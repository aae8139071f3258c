//! What the workflow does to the world: publish a request, look at what Postgres knows. Both are repeated by Temporal
//! until they succeed, so both must be harmless to repeat.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use schemas::OrderId;
use serde::{Deserialize, Serialize};
use telemetry::traces::{KeyValue, Parent, Span, SpanKind};
use telemetry::{TraceContext, Tracer};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::decide::SagaRequest;
use crate::facts::Fact;
use crate::saga::SagaEvent;
use crate::trace;

/// What supervision reaches: a broker and a database in earnest, memory in tests.
pub trait World: Send + Sync {
    /// Publishes `event` to the topic `saga`, keyed by its order, as part of `trace`; returns when every in-sync replica has
    /// it.
    fn publish(
        &self,
        event: SagaEvent,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'_, anyhow::Result<()>>;

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
    /// Who records them.
    pub tracer: Tracer,
}

#[activities]
impl OrderActivities {
    /// Publishes a request.
    #[activity(name = "publish")]
    pub async fn publish(
        self: Arc<Self>,
        context: ActivityContext,
        publication: Publication,
    ) -> Result<(), ActivityError> {
        let attempt = Recorded::begin(&self.tracer, &context);
        let done = self.attempt_publish(publication, attempt.place).await;
        attempt.end("RunActivity:publish", &context, done.is_err());
        Ok(done.map_err(Failed)?)
    }

    /// Asks what is known.
    #[activity(name = "look")]
    pub async fn look(
        self: Arc<Self>,
        context: ActivityContext,
        order: OrderId,
    ) -> Result<Vec<Fact>, ActivityError> {
        let attempt = Recorded::begin(&self.tracer, &context);
        let done = self.attempt_look(order).await;
        attempt.end("RunActivity:look", &context, done.is_err());
        Ok(done.map_err(Failed)?)
    }
}

impl OrderActivities {
    async fn attempt_publish(
        &self,
        publication: Publication,
        trace: Option<TraceContext>,
    ) -> anyhow::Result<()> {
        let Publication { order_id, request } = publication;
        let told = async {
            let event = SagaEvent::of(order_id, request).context("building the event")?;
            self.world.publish(event, trace).await
        };
        self.metrics.time("publish", ATTEMPT_LIMIT, told).await
    }

    async fn attempt_look(&self, order: OrderId) -> anyhow::Result<Vec<Fact>> {
        self.metrics.time("look", ATTEMPT_LIMIT, self.world.look(order)).await
    }
}

/// An attempt in the trace that its workflow heard of last; without one there is nothing to be part of.
struct Recorded<'a> {
    tracer: &'a Tracer,
    parent: Option<TraceContext>,
    /// Its own place.
    place: Option<TraceContext>,
    began: SystemTime,
}

impl<'a> Recorded<'a> {
    fn begin(tracer: &'a Tracer, context: &ActivityContext) -> Self {
        let parent = trace::of_headers(context.headers());
        let place = parent.map(|parent| tracer.enter(Some(&parent)));
        Self { tracer, parent, place, began: SystemTime::now() }
    }

    /// Named as Temporal's own SDKs name it.
    fn end(self, name: &'static str, context: &ActivityContext, failed: bool) {
        let (Some(parent), Some(place)) = (self.parent, self.place) else { return };
        if !self.tracer.records(&place) {
            return;
        }
        let times = (self.began, SystemTime::now());
        let mut span = Span::new(place, Parent::Elsewhere(parent), name, SpanKind::Server, times);
        let info = context.info();
        span.attributes = vec![
            KeyValue::new("temporalActivityID", info.activity_id.clone()),
            KeyValue::new("temporalActivityType", info.activity_type.clone()),
        ];
        let workflow =
            [("temporalWorkflowID", &info.workflow_id), ("temporalRunID", &info.workflow_run_id)];
        span.attributes.extend(
            workflow.into_iter().filter_map(|(name, id)| Some(KeyValue::new(name, id.clone()?))),
        );
        span.error = failed.then_some("the attempt failed and will be repeated".into());
        self.tracer.record(span);
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
        fn publish(
            &self,
            event: SagaEvent,
            _: Option<TraceContext>,
        ) -> BoxFuture<'_, anyhow::Result<()>> {
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
        (OrderActivities { world, metrics, tracer: Tracer::off() }, registry)
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
            let publication = publication(kind, 1_800_000_000_000);
            activities.attempt_publish(publication, None).await.unwrap();
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

        let publication = publication(RequestKind::Refund, 1_800_000_000_000);
        let error = activities.attempt_publish(publication, None);

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
