//! HTTP calls to the services of others (gateway, carrier): deadlines, idempotency keys, and which answers are final.

use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use schemas::EventId;
use telemetry::Secret;

use crate::stage::Fault;

/// Most calls in flight at once per batch: enough to hide the latency of one call, few enough to be a good guest.
const CONCURRENT_CALLS: usize = 32;

/// Makes the calls, a bounded number at a time, and answers in no particular order; the first fault ends it.
pub(crate) async fn concurrently<T>(
    calls: Vec<BoxFuture<'_, Result<T, Fault>>>,
) -> Result<Vec<T>, Fault> {
    tokio_stream::iter(calls).buffer_unordered(CONCURRENT_CALLS).try_collect().await
}

/// A service of somebody else.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    name: &'static str,
    client: Client,
    base: Url,
    token: Option<Secret>,
}

impl Service {
    /// `token_variable` (or the file that `<token_variable>_FILE` names) holds the bearer token, if the service wants one.
    pub(crate) fn new(
        name: &'static str,
        base: &Url,
        timeout: Duration,
        token_variable: &str,
    ) -> anyhow::Result<Self> {
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(2)))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .with_context(|| format!("building the HTTP client of the {name}"))?;
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self { name, client, base, token: Secret::from_environment(token_variable)? })
    }

    /// A request whose repetition the service recognises by `key`.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        key: EventId,
    ) -> Result<RequestBuilder, Fault> {
        let url = self.base.join(path).map_err(|error| Fault::Transient(error.into()))?;
        let request =
            self.client.request(method, url).header("idempotency-key", format!("\"{key}\""));
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    /// Sends. A response comes back when its status is a success or among `answers`; all else may work later, as may
    /// no response at all: the outcome is unknown and the same key asks again.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        answers: &[StatusCode],
    ) -> Result<Response, Fault> {
        let name = self.name;
        let response = request.send().await.map_err(|error| {
            Fault::Transient(
                anyhow::Error::new(error.without_url()).context(format!("calling the {name}")),
            )
        })?;
        let status = response.status();
        if status.is_success() || answers.contains(&status) {
            Ok(response)
        } else {
            Err(Fault::Transient(anyhow::anyhow!("the {name} answered {status}")))
        }
    }

    /// Reads the body of an answer.
    pub(crate) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, Fault> {
        let name = self.name;
        response.json().await.map_err(|error| {
            Fault::Transient(
                anyhow::Error::new(error.without_url())
                    .context(format!("reading the answer of the {name}")),
            )
        })
    }
}
