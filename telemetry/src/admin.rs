//! The admin server of a process: `/metrics`, `/livez`, `/readyz`, on a port of its own that faces only operators.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;

use crate::{Metrics, Shutdown};

/// Where the admin server listens.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Address of /metrics, /livez and /readyz. Loopback by default: these pages are for operators only.
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
}

/// What must be well for a process to be ready. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

impl Readiness {
    /// Says that `check` is well, or why not. A check exists from the first time it is named.
    pub fn set(&self, check: &str, state: Result<(), String>) {
        self.lock().insert(check.to_owned(), state);
    }

    /// The state of every check, as lines, and whether all are well.
    pub fn report(&self) -> (bool, String) {
        let checks = self.lock();
        let ready = checks.values().all(Result::is_ok);
        let lines = checks.iter().map(|(name, state)| match state {
            Ok(()) => format!("[+] {name} ok\n"),
            Err(why) => format!("[-] {name}: {why}\n"),
        });
        (ready, lines.collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Result<(), String>>> {
        self.checks.lock().expect("no code panics while it holds this lock")
    }
}

/// Binds and serves until shutdown; returns the bound address once it listens.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("binding the admin address {address}"))?;
    let bound = listener.local_addr().context("reading the bound admin address")?;
    let routes = Router::new()
        .route("/metrics", get(encode))
        .with_state(metrics)
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness));
    tokio::spawn(async move {
        let served = axum::serve(listener, routes)
            .with_graceful_shutdown(async move { shutdown.wait().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin server stopped");
        }
    });
    Ok(bound)
}

async fn encode(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> impl IntoResponse {
    // A list may come as one header or as several.
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (content_type, text) = metrics.encode_for(&accept.collect::<Vec<_>>().join(","));
    ([(header::CONTENT_TYPE, content_type)], text)
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let (ready, report) = readiness.report();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report)
}
