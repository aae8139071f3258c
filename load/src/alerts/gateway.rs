//! A payment gateway on a real HTTP server, whose mood can be changed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

/// What it does with charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mood {
    /// Captures every charge.
    Good,
    /// Declines every second one.
    Declining,
    /// Fails at every second request; the same charge may work later.
    Failing,
}

/// The gateway.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mood: AtomicU8,
    requests: AtomicU64,
}

impl Gateway {
    /// Serves until this process ends.
    pub(super) async fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("listen for payments")?;
        let inner = Inner { mood: AtomicU8::new(Mood::Good as u8), requests: AtomicU64::new(0) };
        let this = Self { address: listener.local_addr()?, inner: Arc::new(inner) };
        let routes = Router::new()
            .route("/charges", post(charge))
            .fallback(|| async { Json(json!({})) })
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(this)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn set(&self, mood: Mood) {
        self.inner.mood.store(mood as u8, Ordering::Relaxed);
    }
}

async fn charge(State(gateway): State<Gateway>, headers: HeaderMap) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let key = key.trim_matches('"');
    let mood = gateway.inner.mood.load(Ordering::Relaxed);
    if mood == Mood::Failing as u8 {
        let number = gateway.inner.requests.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(2) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    // By the key, so that a repeated charge has the same fate.
    let chosen = key.bytes().last().is_some_and(|last| last % 2 == 0);
    if mood == Mood::Declining as u8 && chosen {
        let why = Json(json!({"reason": "insufficient_funds"}));
        return (StatusCode::PAYMENT_REQUIRED, why).into_response();
    }
    Json(json!({"payment_id": format!("pay-{key}")})).into_response()
}
