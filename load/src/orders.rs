//! A client of the HTTP API that behaves as the documentation asks: a key per order, and the same key again after 503 or
//! no answer at all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt, stream};
use producers::request::OrderRequest;
use reqwest::{Response, StatusCode};
use schemas::OrderId;
use serde::Deserialize;

/// Above the server's own deadline, so that its answer is heard.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Speaks to one producer.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// An order that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its number in the run.
    pub number: u64,
    pub order_id: OrderId,
    /// What became of the wish to cancel it, if there was one.
    pub cancel: Option<Cancel>,
}

/// The answer to a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Recorded; whether it was in time shows later.
    Requested,
    /// The order was final already.
    TooLate,
}

/// An order as the API tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    pub order_id: OrderId,
    pub status: String,
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// How to place many orders.
#[derive(Clone, Debug)]
pub struct Run {
    /// Makes the keys of this run differ from those of every other.
    pub id: String,
    /// Requests on their way at a time.
    pub concurrency: usize,
    /// Cancels every n-th order right after it was accepted; none when 0.
    pub cancel_every: u64,
    /// How long one order may take to be accepted, retries included.
    pub patience: Duration,
}

impl Default for Run {
    fn default() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { id, concurrency: 32, cancel_every: 0, patience: Duration::from_secs(60) }
    }
}

#[derive(Deserialize)]
struct Accepted {
    order_id: OrderId,
}

/// Why an answer is not the one that was hoped for.
enum Trouble {
    /// The same request may work later, and must be repeated: its outcome is not known.
    Retry(String),
    /// It never will.
    Refused(StatusCode, String),
}

impl Client {
    pub fn new(api: SocketAddr) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(ANSWER_PATIENCE).no_proxy().build();
        Ok(Self { http: http.context("build an HTTP client")?, base: format!("http://{api}") })
    }

    /// The URL of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Asks once; an answer of any kind comes back.
    pub async fn post_once(&self, order: &OrderRequest, key: &str) -> reqwest::Result<Response> {
        let request = self.http.post(self.url("/orders"));
        request.header("idempotency-key", key).json(order).send().await
    }

    /// Asks under the same key until the order is accepted.
    pub async fn place(
        &self,
        order: &OrderRequest,
        key: &str,
        patience: Duration,
    ) -> anyhow::Result<OrderId> {
        let accepted: Accepted = until(patience, "place an order", async || {
            let response = settled(self.post_once(order, key).await).await?;
            response.json().await.map_err(|error| Trouble::Retry(error.to_string()))
        })
        .await?;
        Ok(accepted.order_id)
    }

    /// Asks until the wish is recorded, or comes too late.
    pub async fn cancel(&self, order_id: OrderId, patience: Duration) -> anyhow::Result<Cancel> {
        until(patience, "cancel an order", async || {
            let url = self.url(&format!("/orders/{order_id}/cancel"));
            match settled(self.http.post(url).send().await).await {
                Ok(_) => Ok(Cancel::Requested),
                Err(Trouble::Refused(StatusCode::CONFLICT, _)) => Ok(Cancel::TooLate),
                // Accepted a moment ago: the projection that answers here has yet to hear of it.
                Err(Trouble::Refused(StatusCode::NOT_FOUND, body)) => Err(Trouble::Retry(body)),
                Err(trouble) => Err(trouble),
            }
        })
        .await
    }

    /// Reads an order, waiting on the server for its end; `None` when it is not known.
    pub async fn order(&self, order_id: OrderId, wait: &str) -> anyhow::Result<Option<View>> {
        let url = self.url(&format!("/orders/{order_id}?wait={wait}"));
        let timeout = ANSWER_PATIENCE + Duration::from_secs(30);
        let response = self.http.get(url).timeout(timeout).send().await.context("read an order")?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let view = response.error_for_status().context("read an order")?.json().await;
        view.map(Some).context("read an order")
    }

    /// Reads any path as JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let response = self.http.get(self.url(path)).send().await;
        let response = response
            .and_then(Response::error_for_status)
            .with_context(|| format!("read {path}"))?;
        response.json().await.with_context(|| format!("read {path}"))
    }

    /// Places every order of `orders`, and returns when each is accepted. `each` hears of them as they come.
    pub async fn place_all(
        &self,
        orders: impl IntoIterator<Item = OrderRequest>,
        run: &Run,
        each: impl Fn(&Placed),
    ) -> anyhow::Result<Vec<Placed>> {
        let placing = (0..).zip(orders).map(|(number, order)| async move {
            let key = run.key(number);
            let order_id = self.place(&order, &key, run.patience).await?;
            let wanted = run.cancel_every > 0 && number % run.cancel_every == run.cancel_every - 1;
            let cancel =
                if wanted { Some(self.cancel(order_id, run.patience).await?) } else { None };
            anyhow::Ok(Placed { number, order_id, cancel })
        });
        stream::iter(placing).buffer_unordered(run.concurrency).inspect_ok(each).try_collect().await
    }
}

impl Run {
    /// The idempotency key of order `number`.
    pub fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.id)
    }
}

/// Sorts an answer: a success, trouble that may pass, trouble that will not.
async fn settled(answer: reqwest::Result<Response>) -> Result<Response, Trouble> {
    let response = answer.map_err(|error| Trouble::Retry(error.to_string()))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            Err(Trouble::Retry(body))
        }
        _ => Err(Trouble::Refused(status, body)),
    }
}

async fn until<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, Trouble>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    let mut wait = FIRST_RETRY;
    loop {
        let said = match ask().await {
            Ok(value) => return Ok(value),
            Err(Trouble::Refused(status, body)) => bail!("{what}: {status}: {body}"),
            Err(Trouble::Retry(said)) => said,
        };
        if Instant::now() + wait >= deadline {
            bail!("{what}: not within {patience:?}; last answer: {said}");
        }
        // A client's own manners, not a wait for something to have happened.
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}
