//! Gets a chunk acknowledged, however often that takes: the ids stay the same, so sending twice is harmless.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use telemetry::Tracer;
use telemetry::traces::Parent;
use tokio::time::{Instant, sleep};

use super::source::Chunk;
use crate::events::{Encoded, OrdersTopic};
use crate::publisher::{PublishError, Publisher};

/// Pause before records are sent again.
const PAUSE: Duration = Duration::from_millis(200);

/// The broker acknowledged nothing for too long, or refuses the records.
#[derive(Debug)]
pub(super) struct Undelivered(pub(super) String);

/// Delivers chunks. Clones know of each other's success.
#[derive(Clone)]
pub(super) struct Delivery {
    publisher: Publisher,
    topic: Arc<OrdersTopic>,
    give_up_after: Duration,
    tracer: Tracer,
    last_success: Arc<Mutex<Instant>>,
}

impl Delivery {
    pub(super) fn new(
        publisher: Publisher,
        topic: OrdersTopic,
        give_up_after: Duration,
        tracer: Tracer,
    ) -> Self {
        let last_success = Arc::new(Mutex::new(Instant::now()));
        Self { publisher, topic: Arc::new(topic), give_up_after, tracer, last_success }
    }

    /// Answers when every event of `chunk` is acknowledged.
    pub(super) fn deliver(
        &self,
        chunk: Chunk,
    ) -> impl Future<Output = Result<Chunk, Undelivered>> + use<> {
        let this = self.clone();
        async move {
            let began = SystemTime::now();
            let mut left: Vec<&Encoded> = chunk.events.iter().collect();
            while !left.is_empty() {
                let count = left.len();
                let (again, error) = this.attempt(left).await?;
                left = again;
                if left.len() < count {
                    *this.last_success.lock().expect("no code panics while it holds this lock") =
                        Instant::now();
                }
                if let Some(error) = error {
                    this.pause(&error).await?;
                }
            }
            for event in &chunk.events {
                event.named().sent(&this.tracer, this.topic.name(), Parent::None, began, None);
            }
            Ok(chunk)
        }
    }

    /// Sends `events` once. Answers with those to send again, and why.
    async fn attempt<'a>(
        &self,
        events: Vec<&'a Encoded>,
    ) -> Result<(Vec<&'a Encoded>, Option<PublishError>), Undelivered> {
        let mut batch = self.publisher.batch();
        let mut full = None;
        for &event in &events {
            if let Err(error) = self.topic.add(&mut batch, event) {
                full = Some(error);
                break;
            }
        }
        let taken = batch.len();
        let mut failed = batch.acknowledged().await.err().unwrap_or_default();
        failed.sort_unstable_by_key(|(index, _)| *index);
        let mut again: Vec<_> = failed.iter().map(|(index, _)| events[*index]).collect();
        again.extend_from_slice(&events[taken..]);
        let error = failed.into_iter().map(|(_, error)| error).next().or(full);
        match error {
            Some(error @ (PublishError::Unfit(_) | PublishError::Refused(_))) => {
                Err(Undelivered(error.to_string()))
            }
            error => Ok((again, error)),
        }
    }

    async fn pause(&self, error: &PublishError) -> Result<(), Undelivered> {
        let last = *self.last_success.lock().expect("no code panics while it holds this lock");
        if let Some(dead) = self.publisher.fatal_error() {
            return Err(Undelivered(dead));
        }
        if last.elapsed() > self.give_up_after {
            let seconds = self.give_up_after.as_secs();
            return Err(Undelivered(format!("nothing was acknowledged for {seconds} s: {error}")));
        }
        sleep(PAUSE).await;
        Ok(())
    }
}
