//! The workflow of one order: hears facts, decides by `decide`, acts through activities. Deterministic: no clock, no
//! randomness and no order of iteration but the workflow's own, so that any worker can replay it.

use std::pin::Pin;
use std::time::{Duration, UNIX_EPOCH};

use schemas::OrderId;
use serde::{Deserialize, Serialize};
use temporalio_common::RetryPolicy;
use temporalio_common::data_converters::RawValue;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::workflows::select;
use temporalio_sdk::{
    ActivityOptions, CancellableFuture, ContinueAsNewOptions, SyncWorkflowContext, WorkflowContext,
    WorkflowContextView, WorkflowResult,
};

use crate::activities::{ATTEMPT_LIMIT, OrderActivities, Publication};
use crate::decide::{self, Awaited, Deadlines, Progress, RequestKind, Step};
use crate::facts::{Fact, Facts, Status};

/// The workflow type, as the UI shows it.
pub const TYPE: &str = "OrderWorkflow";

/// The signal that carries facts.
pub const SIGNAL: &str = "order_events";

/// Where workers and clients meet.
pub const TASK_QUEUE: &str = "orders";

/// A run hands over to a fresh one at this many events: replaying them after a crash takes milliseconds, and the
/// server's own limit is 25 times as far.
pub const HISTORY_LIMIT: u32 = 2000;

/// The workflow's id: one workflow per order, for ever.
pub fn workflow_id(order: OrderId) -> String {
    format!("order-{order}")
}

/// The order of a workflow id.
pub fn order_of(workflow_id: &str) -> Option<OrderId> {
    workflow_id.strip_prefix("order-")?.parse().ok()
}

/// The input of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The order.
    pub order_id: OrderId,
    /// How long its steps may take.
    pub deadlines: Deadlines,
    /// Supervision began late, so that some events were never told: look before anything else.
    #[serde(default)]
    pub partial: bool,
    /// Events of a run's history before it hands over.
    #[serde(default = "history_limit")]
    pub history_limit: u32,
    /// What the run before knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

fn history_limit() -> u32 {
    HISTORY_LIMIT
}

impl Start {
    /// For an order that is heard of for the first time.
    pub fn new(order_id: OrderId, deadlines: Deadlines, partial: bool) -> Self {
        Self { order_id, deadlines, partial, history_limit: HISTORY_LIMIT, carried: None }
    }
}

/// What one run leaves to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// What is known.
    pub facts: Facts,
    /// What was done.
    pub progress: Progress,
    /// Signals, or facts in them, that could not be read.
    pub undecodable: u32,
}

/// The result of a closed workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How the order ended.
    pub status: Status,
}

/// The answer to the query `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How the order stands.
    pub status: Status,
    /// What has to happen next; `None` while the workflow acts, and when it has closed.
    pub awaited: Option<Awaited>,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Requests that were acknowledged, and how often.
    pub requests: Vec<(RequestKind, u32)>,
    /// Different events that were told.
    pub events: usize,
    /// Signals, or facts in them, that could not be read.
    pub undecodable: u32,
}

/// Supervision of one order.
#[workflow]
pub struct OrderWorkflow {
    start: Start,
    carried: Carried,
    waiting: Option<(Awaited, u64)>,
    /// Moves with every signal that told something new.
    revision: u64,
}

#[workflow_methods]
impl OrderWorkflow {
    /// Before the first signal, so that none is lost.
    #[init]
    fn new(_context: &WorkflowContextView, mut start: Start) -> Self {
        let carried = start.carried.take().unwrap_or_else(|| Carried {
            facts: Facts::default(),
            progress: Progress::default(),
            undecodable: 0,
        });
        Self { start, carried, waiting: None, revision: 0 }
    }

    /// Follows the order to its end.
    #[run(name = "OrderWorkflow")]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<Outcome> {
        let context = &*context;
        // A timer is kept while a later one would do: most deadlines are never reached, and each costs two events.
        let mut timer = None;
        loop {
            let now_ms = now_ms(context);
            let revision = context.state(|workflow| workflow.revision);
            let step = context.state_mut(|workflow| workflow.decide(now_ms));
            context.set_current_details(context.state(Self::details));
            match step {
                Step::Close(status) => return Ok(Outcome { status }),
                Step::Look => Self::look(context).await?,
                Step::Publish(request) => Self::publish(context, request).await?,
                Step::Wait { until_ms, .. } => {
                    Self::hand_over_a_long_history(context)?;
                    let kept = timer.take_if(|(due_ms, _)| *due_ms <= until_ms);
                    if let Some((_, late)) = timer.take() {
                        cancel(&late);
                    }
                    let (due_ms, mut running) = kept.unwrap_or_else(|| {
                        let wait = Duration::from_millis(until_ms.saturating_sub(now_ms).max(1));
                        (until_ms, Box::pin(context.timer(wait)))
                    });
                    select! {
                        _ = running => {}
                        told = context.wait_condition(move |workflow| workflow.revision != revision) => {
                            told?;
                            timer = Some((due_ms, running));
                        }
                    }
                }
            }
        }
    }

    /// Takes events in. Reads the payload itself: the SDK answers one that it cannot decode by failing the workflow
    /// task, again and again, and the order would never be heard of again.
    #[signal(name = "order_events")]
    pub fn order_events(&mut self, _context: &mut SyncWorkflowContext<Self>, input: RawValue) {
        let (facts, undecodable) = read(&input);
        self.carried.undecodable = self.carried.undecodable.saturating_add(undecodable);
        let told = facts.iter().fold(false, |told, fact| self.carried.facts.join(fact) | told);
        if told {
            self.revision += 1;
        }
    }

    /// How the order stands, and what the workflow waits for.
    #[query(name = "status")]
    pub fn status(&self, _context: &WorkflowContextView) -> Report {
        let Carried { facts, progress, undecodable } = &self.carried;
        Report {
            status: facts.status(),
            awaited: self.waiting.map(|(awaited, _)| awaited),
            until_ms: self.waiting.map(|(_, until_ms)| until_ms),
            requests: progress.made.iter().map(|(kind, made)| (*kind, made.times)).collect(),
            events: facts.seen(),
            undecodable: *undecodable,
        }
    }
}

impl OrderWorkflow {
    fn decide(&mut self, now_ms: u64) -> Step {
        let Carried { facts, progress, .. } = &mut self.carried;
        if progress.started_ms == 0 {
            progress.started_ms = now_ms;
        }
        progress.hear(facts, now_ms);
        let step = match self.start.partial && progress.looked_ms.is_none() {
            true => Step::Look,
            false => decide::next(facts, progress, &self.start.deadlines, now_ms),
        };
        self.waiting = match step {
            Step::Wait { awaited, until_ms } => Some((awaited, until_ms)),
            Step::Look | Step::Publish(_) | Step::Close(_) => None,
        };
        step
    }

    async fn look(context: &WorkflowContext<Self>) -> WorkflowResult<()> {
        let order = context.state(|workflow| workflow.start.order_id);
        let options = attempts("look at what Postgres knows".to_owned());
        let facts = context.execute_activity(OrderActivities::look, order, options).await?;
        let now_ms = now_ms(context);
        context.state_mut(|workflow| {
            for fact in &facts {
                workflow.carried.facts.join(fact);
            }
            workflow.carried.progress.looked(now_ms);
        });
        Ok(())
    }

    async fn publish(
        context: &WorkflowContext<Self>,
        request: decide::SagaRequest,
    ) -> WorkflowResult<()> {
        let order_id = context.state(|workflow| workflow.start.order_id);
        let options = attempts(format!("{:?}, {:?}", request.kind, request.reason));
        let publication = Publication { order_id, request };
        context.execute_activity(OrderActivities::publish, publication, options).await?;
        let now_ms = now_ms(context);
        context.state_mut(|workflow| workflow.carried.progress.published(request, now_ms));
        Ok(())
    }

    fn hand_over_a_long_history(context: &WorkflowContext<Self>) -> WorkflowResult<()> {
        let limit = context.state(|workflow| workflow.start.history_limit);
        if context.history_length() < limit && !context.continue_as_new_suggested() {
            return Ok(());
        }
        let start = context.state(|workflow| Start {
            carried: Some(workflow.carried.clone()),
            // The first run has looked already.
            ..workflow.start.clone()
        });
        match context.continue_as_new(start, ContinueAsNewOptions::default())? {}
    }

    /// For people, in the UI.
    fn details(&self) -> String {
        let status = self.carried.facts.status().as_str();
        let mut details = match self.waiting {
            Some((awaited, until_ms)) => {
                let until = i64::try_from(until_ms).unwrap_or(i64::MAX).saturating_mul(1000);
                let until = schemas::Timestamp::from_micros(until);
                let until = until.map(|until| until.to_string()).unwrap_or_default();
                format!("**{status}**, waiting for {awaited:?} until {until}")
            }
            None => format!("**{status}**"),
        };
        for (kind, made) in &self.carried.progress.made {
            details += &format!("\n\n- {kind:?} requested {} times", made.times);
        }
        if self.carried.undecodable > 0 {
            details += &format!("\n\n- {} signals were not readable", self.carried.undecodable);
        }
        details
    }
}

/// Without limit: an order must not be given up because a database was away for a night.
fn attempts(summary: String) -> ActivityOptions {
    let retries = RetryPolicy::builder()
        .initial_interval(Duration::from_secs(1))
        .backoff_coefficient(2.0)
        .maximum_interval(Duration::from_secs(60))
        .build();
    // Beyond the attempt's own limit, so that it is the attempt that reports it.
    ActivityOptions::with_start_to_close_timeout(ATTEMPT_LIMIT + Duration::from_secs(10))
        .retry_policy(retries)
        .summary(summary)
        .build()
}

fn cancel(timer: &Pin<Box<impl CancellableFuture>>) {
    timer.as_ref().get_ref().cancel();
}

fn now_ms(context: &WorkflowContext<OrderWorkflow>) -> u64 {
    let since = context.workflow_time().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

/// The facts of a signal, and how many of them (or whether all of it) made no sense.
fn read(input: &RawValue) -> (Vec<Fact>, u32) {
    let mut facts = Vec::new();
    let mut undecodable = 0;
    for payload in &input.payloads {
        let Ok(listed) = serde_json::from_slice::<Vec<serde_json::Value>>(&payload.data) else {
            undecodable += 1;
            continue;
        };
        for value in listed {
            match serde_json::from_value(value) {
                Ok(fact) => facts.push(fact),
                Err(_) => undecodable += 1,
            }
        }
    }
    (facts, undecodable)
}
