//! Ordinary orders, at a steady rate, for as long as somebody looks: without them nothing that is wrong would show.
//!
//! Every order is asked for once. What is refused is not asked for again, so that a broken pipeline is not also loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use producers::generate::{Generator, Mix};
use producers::request::OrderRequest;
use reqwest::Response;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::orders::{Client, Run};

/// Requests on their way at a time; beyond, orders are left out.
const CONCURRENCY: usize = 64;

/// What a slow client takes to send its order, well above the 250 ms of the objective on latency.
const SLOW: Duration = Duration::from_millis(400);

/// The orders' source; it dries up with its handle.
#[derive(Debug)]
pub(crate) struct Background {
    /// Orders per second.
    rate: watch::Sender<u32>,
    /// Of a thousand orders, those whose client sends them slowly.
    slow_per_mille: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

/// Who sends the orders, and where to.
struct Clients {
    usual: Client,
    slow: reqwest::Client,
    slow_per_mille: Arc<AtomicU32>,
}

impl Background {
    /// Is there, and places nothing until it is given a rate; orders are generated from `skus` articles.
    pub(crate) fn start(client: Client, skus: u32) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build();
        let slow_per_mille = Arc::new(AtomicU32::new(0));
        let clients = Clients {
            usual: client,
            slow: http.context("build an HTTP client")?,
            slow_per_mille: slow_per_mille.clone(),
        };
        let (rate, wanted) = watch::channel(0);
        let task = tokio::spawn(place(clients, wanted, skus));
        Ok(Self { rate, slow_per_mille, task })
    }

    /// 0 holds them back.
    pub(crate) fn set_rate(&self, per_second: u32) {
        self.rate.send_replace(per_second);
    }

    pub(crate) fn set_slow(&self, per_mille: u32) {
        self.slow_per_mille.store(per_mille, Ordering::Relaxed);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until whoever sets the rate is gone.
async fn place(clients: Clients, mut wanted: watch::Receiver<u32>, skus: u32) {
    let mix = Mix { skus, decline_ratio: 0.0, out_of_stock_ratio: 0.0, ..Mix::default() };
    let run = Run::default();
    let room = Arc::new(Semaphore::new(CONCURRENCY));
    let clients = Arc::new(clients);
    let mut orders = (0_u64..).zip(Generator::new(mix));
    loop {
        let rate = *wanted.borrow_and_update();
        if rate == 0 {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let mut timer = interval(Duration::from_secs(1) / rate);
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = timer.tick() => {}
            }
            let Ok(place) = room.clone().try_acquire_owned() else { continue };
            let Some((number, order)) = orders.next() else { return };
            let (clients, key) = (clients.clone(), run.key(number));
            tokio::spawn(async move {
                // A refusal counts where it was made: in the metrics of whoever refused.
                drop(clients.post(number, &order, &key).await);
                drop(place);
            });
        }
    }
}

impl Clients {
    async fn post(
        &self,
        number: u64,
        order: &OrderRequest,
        key: &str,
    ) -> reqwest::Result<Response> {
        let share = u64::from(self.slow_per_mille.load(Ordering::Relaxed));
        // Spread evenly: every order moves the sum on, and one is slow whenever it passes a thousand.
        if number * share / 1000 == (number + 1) * share / 1000 {
            self.usual.post_once(order, key).await
        } else {
            post_slowly(&self.slow, &self.usual.url("/orders"), key, order).await
        }
    }
}

/// As over a bad connection: the head at once, the order a while later.
async fn post_slowly(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    order: &OrderRequest,
) -> reqwest::Result<Response> {
    let body = serde_json::to_vec(order).unwrap_or_default();
    let late = futures::stream::once(async move {
        // The fault's own length, as seen by the server.
        tokio::time::sleep(SLOW).await;
        Ok::<_, std::io::Error>(body)
    });
    http.post(url)
        .header("idempotency-key", key)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(late))
        .send()
        .await
}
