//! Asks the admin endpoints, all at once; who does not answer is told of and holds nobody up.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::join_all;

use super::exposition::{Sample, parse};

/// Longer than any of our processes needs; a frozen one shows as such soon.
const PATIENCE: Duration = Duration::from_secs(2);
/// Far beyond what our processes serve; a lag exporter of a large cluster serves tens of megabytes.
const LARGEST: usize = 256 << 20;

/// An endpoint to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: String,
    /// Not told of when it does not answer: nobody said that it is there.
    pub(super) optional: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) endpoint: Endpoint,
    pub(super) at: Instant,
    pub(super) samples: Result<Vec<Sample>, String>,
}

pub(super) struct Asker {
    client: reqwest::Client,
}

impl Asker {
    pub(super) fn new() -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("building an HTTP client")?;
        Ok(Self { client })
    }

    pub(super) async fn ask(&self, endpoints: &[Endpoint]) -> Vec<Answer> {
        join_all(endpoints.iter().map(async |endpoint| {
            let samples = self.samples(&endpoint.address).await;
            Answer {
                endpoint: endpoint.clone(),
                at: Instant::now(),
                samples: samples.map_err(|error| sentence(&error)),
            }
        }))
        .await
    }

    async fn samples(&self, address: &str) -> anyhow::Result<Vec<Sample>> {
        let mut answer = self.client.get(format!("http://{address}/metrics")).send().await?;
        anyhow::ensure!(answer.status().is_success(), "answered {}", answer.status());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            anyhow::ensure!(body.len() + chunk.len() <= LARGEST, "answered without end");
            body.extend_from_slice(&chunk);
        }
        Ok(parse(&String::from_utf8_lossy(&body)))
    }
}

/// The innermost cause: what the network said.
fn sentence(error: &anyhow::Error) -> String {
    let timed_out = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
    if timed_out { "no answer in time".to_owned() } else { error.root_cause().to_string() }
}
