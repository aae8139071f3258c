//! Messages on their way to the supervision of orders: one call at a time per order, a bounded number at once, and what
//! waits for the same order travels together.
//!
//! Promises that messages of one order are delivered in the order in which they were put in. Knows nothing of Temporal.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use schemas::OrderId;
use tokio::sync::{Semaphore, oneshot};

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    Applied,
    /// What it is about had ended.
    Closed,
}

/// Takes the bodies of messages of one order to where they belong.
pub(crate) trait Deliver: Send + Sync + 'static {
    fn deliver(
        &self,
        order: OrderId,
        bodies: Vec<Vec<u8>>,
    ) -> impl Future<Output = anyhow::Result<Delivered>> + Send;
}

/// Why a message may not have arrived; the same for all that travelled with it.
type Failure = Arc<anyhow::Error>;
type Answer = Result<Delivered, Failure>;

struct Waiting {
    body: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// The mailboxes. Clones share them.
pub(crate) struct Mailboxes<D> {
    deliver: Arc<D>,
    calls: Arc<Semaphore>,
    /// A box per order that somebody is delivering to.
    boxes: Arc<Mutex<HashMap<OrderId, Vec<Waiting>>>>,
}

impl<D: Deliver> Mailboxes<D> {
    pub(crate) fn new(deliver: D, calls: usize) -> Self {
        Self {
            deliver: Arc::new(deliver),
            calls: Arc::new(Semaphore::new(calls)),
            boxes: Arc::default(),
        }
    }

    /// Puts a message in. The answer comes when it was delivered, or was not.
    pub(crate) fn put(&self, order: OrderId, body: Vec<u8>) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { body, answer };
        let mut boxes = self.boxes.lock().expect("no code panics while it holds this lock");
        match boxes.get_mut(&order) {
            Some(waiting_too) => waiting_too.push(waiting),
            None => {
                boxes.insert(order, vec![waiting]);
                drop(boxes);
                tokio::spawn(empty(self.clone(), order));
            }
        }
        answered
    }

    /// What waits for `order`.
    fn take(&self, order: OrderId) -> Vec<Waiting> {
        let mut boxes = self.boxes.lock().expect("no code panics while it holds this lock");
        boxes.get_mut(&order).map(std::mem::take).unwrap_or_default()
    }

    /// The same; takes an empty box away, so that the next message begins anew.
    fn take_or_close(&self, order: OrderId) -> Vec<Waiting> {
        let mut boxes = self.boxes.lock().expect("no code panics while it holds this lock");
        let waiting = boxes.get_mut(&order).map(std::mem::take).unwrap_or_default();
        if waiting.is_empty() {
            boxes.remove(&order);
        }
        waiting
    }
}

impl<D> Clone for Mailboxes<D> {
    fn clone(&self) -> Self {
        Self { deliver: self.deliver.clone(), calls: self.calls.clone(), boxes: self.boxes.clone() }
    }
}

/// Delivers what is in the box of `order` until it stays empty. After a failure everything in it fails: what waits was
/// put in later, and must not overtake.
async fn empty<D: Deliver>(mailboxes: Mailboxes<D>, order: OrderId) {
    loop {
        let permit = mailboxes.calls.acquire().await;
        let waiting = mailboxes.take_or_close(order);
        if waiting.is_empty() {
            return;
        }
        let (bodies, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.body, waiting.answer)).unzip();
        let answer = mailboxes.deliver.deliver(order, bodies).await.map_err(Arc::new);
        drop(permit);
        // Whoever gave up waiting tells it again.
        answers.into_iter().for_each(|waiting| drop(waiting.send(answer.clone())));
        if answer.is_err() {
            let behind = mailboxes.take(order);
            behind.into_iter().for_each(|waiting| drop(waiting.answer.send(answer.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Notes what it is given, and answers when told to.
    struct Slow {
        calls: mpsc::UnboundedSender<(OrderId, Vec<Vec<u8>>, oneshot::Sender<bool>)>,
    }

    impl Deliver for Slow {
        async fn deliver(&self, order: OrderId, bodies: Vec<Vec<u8>>) -> anyhow::Result<Delivered> {
            let (finish, finished) = oneshot::channel();
            self.calls.send((order, bodies, finish)).unwrap();
            anyhow::ensure!(finished.await.unwrap(), "told to fail");
            Ok(Delivered::Applied)
        }
    }

    #[tokio::test]
    async fn what_waits_for_one_order_travels_together_and_in_order() {
        let (calls, mut called) = mpsc::unbounded_channel();
        let mailboxes = Mailboxes::new(Slow { calls }, 8);
        let order = OrderId::fresh();

        let first = mailboxes.put(order, vec![1]);
        let (_, bodies, finish) = called.recv().await.unwrap();
        let rest = [mailboxes.put(order, vec![2]), mailboxes.put(order, vec![3])];
        finish.send(true).unwrap();
        let (_, together, finish_rest) = called.recv().await.unwrap();
        finish_rest.send(true).unwrap();

        assert_eq!((bodies, together), (vec![vec![1]], vec![vec![2], vec![3]]));
        assert_eq!(first.await.unwrap().unwrap(), Delivered::Applied);
        for answer in rest {
            assert_eq!(answer.await.unwrap().unwrap(), Delivered::Applied);
        }
    }

    #[tokio::test]
    async fn what_waits_behind_a_failure_fails_too_and_the_next_message_is_delivered() {
        let (calls, mut called) = mpsc::unbounded_channel();
        let mailboxes = Mailboxes::new(Slow { calls }, 8);
        let order = OrderId::fresh();

        let first = mailboxes.put(order, vec![1]);
        let (_, _, finish) = called.recv().await.unwrap();
        let behind = mailboxes.put(order, vec![2]);
        finish.send(false).unwrap();
        first.await.unwrap().unwrap_err();
        behind.await.unwrap().unwrap_err();
        let again = mailboxes.put(order, vec![1]);
        let (_, bodies, finish) = called.recv().await.unwrap();
        finish.send(true).unwrap();

        assert_eq!(bodies, [vec![1]]);
        again.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn no_more_calls_at_once_than_allowed() {
        let (calls, mut called) = mpsc::unbounded_channel();
        let mailboxes = Mailboxes::new(Slow { calls }, 2);
        let answers: Vec<_> = (0..5).map(|n| mailboxes.put(OrderId::fresh(), vec![n])).collect();

        let mut open = vec![called.recv().await.unwrap().2, called.recv().await.unwrap().2];
        assert!(called.try_recv().is_err(), "a third call while two are out");
        while let Some(finish) = open.pop() {
            finish.send(true).unwrap();
            if open.len() < 2
                && let Ok(Some(next)) =
                    tokio::time::timeout(std::time::Duration::from_secs(1), called.recv()).await
            {
                open.push(next.2);
            }
        }

        for answer in answers {
            answer.await.unwrap().unwrap();
        }
    }
}
