//! Asks the projection which keyed orders it knows already, many requests in one query.
//!
//! Best effort: when Postgres is slow or away the answer is "not known" and the order goes on. The order id is
//! derived from the key, so the worst case is a conflict that the pipeline finds instead of the API.

use std::collections::HashMap;
use std::time::Duration;

use schemas::OrderId;
use sqlx::PgPool;
use telemetry::{TraceContext, Tracer};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::projection::{self, KnownOrder};
use crate::spans::Select;

/// How long a request waits for an answer. Far above a healthy look-up (1–3 ms), far below what a client notices.
const PATIENCE: Duration = Duration::from_millis(50);
/// Most ids in one query; a batch of orders fits twice.
const IDS_PER_QUERY: usize = 2_000;
/// Requests that may queue for the next query.
const QUEUE: usize = 8_192;
/// How long nobody asks after an answer failed to come, so that a Postgres in trouble costs no request anything.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks. Clones share one task, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Lookup {
    pool: PgPool,
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    orders: Vec<OrderId>,
    answer: oneshot::Sender<Vec<KnownOrder>>,
}

impl Lookup {
    /// Starts the task that asks `pool`.
    pub fn start(pool: PgPool) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(pool.clone(), queue));
        Self { pool, questions }
    }

    /// Those of `orders` that the projection knows, as far as it said so in time; recorded as a part of `request`.
    pub async fn known(
        &self,
        orders: Vec<OrderId>,
        tracer: &Tracer,
        request: &TraceContext,
    ) -> Vec<KnownOrder> {
        let select = Select::begin(tracer, request, &self.pool, "orders");
        let (answer, answered) = oneshot::channel();
        if self.questions.try_send(Question { orders, answer }).is_err() {
            select.failed("overloaded");
            return Vec::new();
        }
        match timeout(PATIENCE, answered).await {
            Ok(Ok(known)) => {
                select.answered();
                known
            }
            Ok(Err(_)) => {
                select.failed("unavailable");
                Vec::new()
            }
            Err(_) => {
                select.failed("timeout");
                Vec::new()
            }
        }
    }
}

async fn run(pool: PgPool, mut queue: mpsc::Receiver<Question>) {
    let mut paused_until: Option<Instant> = None;
    while let Some(first) = queue.recv().await {
        if paused_until.is_some_and(|until| Instant::now() < until) {
            // Dropping the question answers it: not known.
            continue;
        }
        let mut questions = vec![first];
        let mut ids: Vec<Uuid> = questions[0].orders.iter().map(|order| order.0).collect();
        while ids.len() < IDS_PER_QUERY
            && let Ok(next) = queue.try_recv()
        {
            ids.extend(next.orders.iter().map(|order| order.0));
            questions.push(next);
        }
        match timeout(PATIENCE * 2, projection::known_orders(&pool, &ids)).await {
            Ok(Ok(found)) => {
                paused_until = None;
                answer(questions, found);
            }
            outcome => {
                let error = outcome.ok().and_then(Result::err);
                let reason =
                    error.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
                if paused_until.is_none() {
                    tracing::warn!(
                        reason,
                        "idempotency keys are not looked up in the projection for now"
                    );
                }
                paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }
}

fn answer(questions: Vec<Question>, found: Vec<KnownOrder>) {
    let found: HashMap<OrderId, KnownOrder> =
        found.into_iter().map(|known| (known.order_id, known)).collect();
    for question in questions {
        let known = question.orders.iter().filter_map(|order| found.get(order).copied()).collect();
        // Whoever asked may have lost patience.
        drop(question.answer.send(known));
    }
}
