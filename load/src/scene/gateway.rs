//! A payment gateway on a real HTTP server, whose mood can be changed. It remembers what it decided, and when.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use super::prometheus::now;

/// What it does with charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    /// Captures every charge.
    Good,
    /// Declines every second one.
    Declining,
    /// Fails at every second request; the same charge may work later.
    Failing,
}

/// The gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mood: AtomicU8,
    requests: AtomicU64,
    decided: Mutex<BTreeMap<String, Decision>>,
}

/// What became of a charge; a repeat of it changes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    /// In seconds since 1970.
    pub(crate) at: f64,
    pub(crate) declined: bool,
}

impl Gateway {
    /// Serves until this process ends.
    pub(crate) async fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("listen for payments")?;
        let inner = Inner {
            mood: AtomicU8::new(Mood::Good as u8),
            requests: AtomicU64::new(0),
            decided: Mutex::default(),
        };
        let this = Self { address: listener.local_addr()?, inner: Arc::new(inner) };
        let routes = Router::new()
            .route("/charges", post(charge))
            .fallback(|| async { Json(json!({})) })
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(this)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every charge that was decided.
    pub(crate) fn decisions(&self) -> Vec<Decision> {
        let decided = self.inner.decided.lock().expect("no code panics while it holds this lock");
        decided.values().copied().collect()
    }

    fn decide(&self, key: &str, declined: bool) {
        let decision = Decision { at: now(), declined };
        let mut decided =
            self.inner.decided.lock().expect("no code panics while it holds this lock");
        decided.entry(key.to_owned()).or_insert(decision);
    }

    pub(crate) fn set(&self, mood: Mood) {
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
    let declined = mood == Mood::Declining as u8 && chosen;
    gateway.decide(key, declined);
    if declined {
        let why = Json(json!({"reason": "insufficient_funds"}));
        return (StatusCode::PAYMENT_REQUIRED, why).into_response();
    }
    Json(json!({"payment_id": format!("pay-{key}")})).into_response()
}
