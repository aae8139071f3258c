//! Where the demo's alerts arrive: a receiver for everything that Alertmanager sends over HTTP. What fires and what is over
//! goes to the terminal, a line each.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use tokio::net::TcpListener;

/// The address that `prometheus/alertmanager/alertmanager.yml` names.
pub(super) const DOCUMENTED_PORT: u16 = 9095;

/// A notification, as far as it is shown.
#[derive(Deserialize)]
struct Notification {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    status: String,
    labels: Labels,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    alertname: String,
    #[serde(default)]
    severity: String,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(default)]
    summary: String,
}

/// Receives until the demo ends.
pub(super) async fn receive(port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen for alerts on {address}"))?;
    // The pager's protocol says accepted, everybody else is content with 200.
    let routes = Router::new()
        .route("/alerts", post(show))
        .route("/pager", post(|| async { StatusCode::ACCEPTED }))
        .fallback(|| async { "ok" });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}

async fn show(body: Bytes) -> StatusCode {
    let Ok(Notification { alerts }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    for Alert { status, labels, annotations } in alerts {
        let Labels { alertname, severity } = labels;
        super::say(&format!("alert {status}: {alertname} ({severity}) {}", annotations.summary));
    }
    StatusCode::OK
}
