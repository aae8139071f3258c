//! The outlet of the stage `workflow`: facts about orders, to their workflows in Temporal.
//!
//! A Temporal that is down shows as lag of one stage and nothing else.

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt};
use schemas::OrderId;
use serde::{Deserialize, Serialize};
use telemetry::TraceContext;
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

/// A fact and the trace it came with. Builds that know nothing of traces read it as the fact alone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TracedFact {
    #[serde(flatten)]
    pub(crate) fact: Fact,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
}

/// A message about an order, in the form that [`TemporalOutlet`] reads.
pub(crate) fn message(order_id: OrderId, facts: &[TracedFact]) -> Message {
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
        let (mut facts, mut trace) = (Vec::new(), None);
        for traced in bodies.iter().map(|body| read(body)).collect::<anyhow::Result<Vec<_>>>()? {
            for TracedFact { fact, traceparent } in traced {
                facts.push(fact);
                // The latest that somebody records is where the order is.
                let told = traceparent.and_then(|text| TraceContext::parse(text.as_bytes()));
                trace = told.filter(TraceContext::is_sampled).or(trace);
            }
        }
        match self
            .0
            .tell_within(trace.as_ref(), order, &facts)
            .await
            .context("signalling a workflow")?
        {
            workflows::Told::Applied => Ok(Delivered::Applied),
            workflows::Told::Closed => Ok(Delivered::Closed),
        }
    }
}

fn read(body: &[u8]) -> anyhow::Result<Vec<TracedFact>> {
    serde_json::from_slice(body).context("reading a message from the outbox")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use workflows::FactKind;

    use super::*;

    #[test]
    fn builds_with_and_without_traces_read_each_others_messages() {
        let fact =
            Fact { id: Uuid::nil(), kind: FactKind::StockReleased, reason: Some("x".to_owned()) };
        let traceparent = Some(TraceContext::fresh().as_str().to_owned());
        let traced = TracedFact { fact: fact.clone(), traceparent: traceparent.clone() };

        let old = serde_json::to_vec(&[&fact]).unwrap();
        let new = message(OrderId::fresh(), &[traced]).body;

        let (from_old, from_new) = (read(&old).unwrap(), read(&new).unwrap());
        assert_eq!((&from_old[0].fact, &from_old[0].traceparent), (&fact, &None));
        assert_eq!((&from_new[0].fact, &from_new[0].traceparent), (&fact, &traceparent));
        assert_eq!(serde_json::from_slice::<Vec<Fact>>(&new).unwrap(), [fact]);
    }
}
