//! The outlet of the stage `workflow`: facts about orders, to their workflows in Temporal.
//!
//! A Temporal that is down shows as lag of one stage and nothing else.

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt};
use schemas::OrderId;
use workflows::{Fact, Supervisor};

use super::mailboxes::{Deliver, Delivered, Mailboxes};
use crate::stage::{Message, Outlet, Told};

/// Signals workflows.
pub(crate) struct TemporalOutlet {
    mailboxes: Mailboxes<Signals>,
}

/// The client, behind what the mailboxes ask for.
struct Signals(Supervisor);

impl TemporalOutlet {
    /// `calls` at once.
    pub(crate) fn new(supervisor: Supervisor, calls: usize) -> Self {
        Self { mailboxes: Mailboxes::new(Signals(supervisor), calls) }
    }
}

/// A message about an order, in the form that [`TemporalOutlet`] reads.
pub(crate) fn message(order_id: OrderId, facts: &[Fact]) -> Message {
    let body = serde_json::to_vec(facts)
        .expect("facts have string keys and write to memory, so they always serialise");
    Message { order_id, body }
}

impl Outlet for TemporalOutlet {
    fn tell(&self, messages: Vec<Message>) -> BoxFuture<'_, Told> {
        async move {
            let answers: Vec<_> = messages
                .iter()
                .map(|message| self.mailboxes.put(message.order_id, message.body.clone()))
                .collect();
            let mut told = Told::default();
            for (message, answer) in messages.into_iter().zip(answers) {
                let error = match answer.await {
                    Ok(Ok(Delivered::Applied)) => {
                        told.applied += 1;
                        continue;
                    }
                    Ok(Ok(Delivered::Closed)) => {
                        told.closed += 1;
                        continue;
                    }
                    Ok(Err(error)) => anyhow::anyhow!("{error:#}"),
                    Err(_) => anyhow::anyhow!("the call ended without an answer"),
                };
                let (untold, _) = told.untold.get_or_insert_with(|| (Vec::new(), error));
                untold.push(message);
            }
            told
        }
        .boxed()
    }
}

impl Deliver for Signals {
    async fn deliver(&self, order: OrderId, bodies: Vec<Vec<u8>>) -> anyhow::Result<Delivered> {
        let mut facts: Vec<Fact> = Vec::new();
        for body in bodies {
            facts.extend(read(&body)?);
        }
        match self.0.tell(order, &facts).await.context("signalling a workflow")? {
            workflows::Told::Applied => Ok(Delivered::Applied),
            workflows::Told::Closed => Ok(Delivered::Closed),
        }
    }
}

fn read(body: &[u8]) -> anyhow::Result<Vec<Fact>> {
    serde_json::from_slice(body).context("reading a message from the outbox")
}
