//! Where the demo's alerts arrive: a receiver for everything that Alertmanager sends over HTTP. What fires and what is over
//! goes to the terminal, a line each.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;

use crate::notification::{Labels, Notification};

/// The address that `prometheus/alertmanager/alertmanager.yml` names.
pub(super) const DOCUMENTED_PORT: u16 = 9095;

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
    for alert in alerts {
        let of = |texts: &Labels, name: &str| texts.get(name).cloned().unwrap_or_default();
        let (name, severity) = (of(&alert.labels, "alertname"), of(&alert.labels, "severity"));
        let summary = of(&alert.annotations, "summary");
        super::say(&format!("alert {}: {name} ({severity}) {summary}", alert.status));
    }
    StatusCode::OK
}
