//! A payment gateway and a carrier on a real HTTP server, which lose answers the way networks do, and keep a ledger of what
//! they really did, keyed by `Idempotency-Key`.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Far beyond the patience of any caller in these tests.
const NEVER: Duration = Duration::from_secs(600);

/// Amounts above this are declined, as by the simulator.
pub(crate) const CARD_LIMIT_CENTS: i64 = 1_000_000;

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    /// Every n-th new key is taken note of, and not answered; none when 0.
    pub(crate) loses_answer_every: u64,
    /// Every n-th new key is refused with 503 once, before anything is noted; none when 0.
    pub(crate) fails_every: u64,
    /// Time that arranging a shipment takes.
    pub(crate) arranging: Duration,
}

/// What was done under one key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) order_id: String,
    pub(crate) amount_cents: i64,
    /// Times it was taken back: refunds and voids of charges, cancellations of shipments.
    pub(crate) taken_back: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Money that moved, by key of the charge.
    pub(crate) charges: HashMap<String, Entry>,
    /// Parcels, by key of the shipment.
    pub(crate) shipments: HashMap<String, Entry>,
    /// Keys of refunds, with the charge each gave back.
    refunds: HashMap<String, String>,
    /// A key goes wrong at most the first time it is seen.
    seen: HashSet<String>,
    pub(crate) lost_answers: u64,
    pub(crate) failures: u64,
}

/// The server; its ledger can be read at any time.
#[derive(Clone)]
pub(crate) struct Outside {
    ledger: Arc<Mutex<Ledger>>,
    mood: Mood,
    address: SocketAddr,
}

/// What happens to a request.
enum Fate {
    Answered,
    AnswerLost,
    Failed,
}

impl Outside {
    /// Serves until the test ends.
    pub(crate) async fn serve(mood: Mood) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { ledger: Arc::default(), mood, address };
        let routes = Router::new()
            .route("/charges", post(charge))
            .route("/charges/void", post(void))
            .route("/charges/{id}/refund", post(refund))
            .route("/shipments", post(arrange))
            .route("/shipments/cancel", post(cancel))
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        this
    }

    /// Arguments that send a stage here, with little patience.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let url = format!("http://{}", self.address);
        let pairs = [
            ("--payment-gateway-url", url.as_str()),
            ("--payment-gateway-timeout-ms", "400"),
            ("--carrier-url", url.as_str()),
            ("--carrier-timeout-ms", "400"),
        ];
        pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn fate(&self, key: &str) -> Fate {
        let mut ledger = self.ledger();
        let number = ledger.seen.len() as u64;
        let is_new = ledger.seen.insert(key.to_owned());
        let every = |n: u64, phase: u64| is_new && n > 0 && number % n == phase;
        if every(self.mood.fails_every, 0) {
            ledger.failures += 1;
            Fate::Failed
        } else if every(self.mood.loses_answer_every, 1) {
            ledger.lost_answers += 1;
            Fate::AnswerLost
        } else {
            Fate::Answered
        }
    }

    /// Does `work` and answers, unless this request is one of those that go wrong.
    async fn handle(
        &self,
        headers: &HeaderMap,
        work: impl FnOnce(&mut Ledger, &str) -> Response,
    ) -> Response {
        let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let key = key.trim_matches('"').to_owned();
        let fate = self.fate(&key);
        if matches!(fate, Fate::Failed) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let answer = work(&mut self.ledger(), &key);
        if matches!(fate, Fate::AnswerLost) {
            tokio::time::sleep(NEVER).await;
        }
        answer
    }
}

impl Ledger {
    /// Charges of `order_id` that were not given back.
    pub(crate) fn paid(&self, order_id: &str) -> Vec<&Entry> {
        self.charges
            .values()
            .filter(|charge| charge.order_id == order_id && charge.taken_back == 0)
            .collect()
    }

    /// Parcels of `order_id` that are on their way.
    pub(crate) fn shipped(&self, order_id: &str) -> usize {
        self.shipments
            .values()
            .filter(|parcel| parcel.order_id == order_id && parcel.taken_back == 0)
            .count()
    }
}

async fn charge(
    State(outside): State<Outside>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let answer = |ledger: &mut Ledger, key: &str| {
        let amount_cents = body["amount_cents"].as_i64().unwrap();
        if amount_cents > CARD_LIMIT_CENTS {
            return (StatusCode::PAYMENT_REQUIRED, Json(json!({"reason": "limit"})))
                .into_response();
        }
        let order_id = body["order_id"].as_str().unwrap().to_owned();
        ledger.charges.entry(key.to_owned()).or_insert(Entry {
            order_id,
            amount_cents,
            taken_back: 0,
        });
        Json(json!({"payment_id": format!("charge-{key}")})).into_response()
    };
    outside.handle(&headers, answer).await
}

async fn refund(
    State(outside): State<Outside>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let answer = |ledger: &mut Ledger, key: &str| {
        let charge = id.trim_start_matches("charge-").to_owned();
        if ledger.refunds.insert(key.to_owned(), charge.clone()).is_none() {
            ledger.charges.get_mut(&charge).unwrap().taken_back += 1;
        }
        StatusCode::OK.into_response()
    };
    outside.handle(&headers, answer).await
}

async fn void(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    let answer = |ledger: &mut Ledger, key: &str| {
        if let Some(charge) = ledger.charges.get_mut(key) {
            charge.taken_back = charge.taken_back.max(1);
        }
        StatusCode::OK.into_response()
    };
    outside.handle(&headers, answer).await
}

async fn arrange(
    State(outside): State<Outside>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    tokio::time::sleep(outside.mood.arranging).await;
    let answer = |ledger: &mut Ledger, key: &str| {
        let order_id = body["order_id"].as_str().unwrap().to_owned();
        ledger.shipments.entry(key.to_owned()).or_insert(Entry {
            order_id,
            amount_cents: 0,
            taken_back: 0,
        });
        Json(json!({"carrier": "test", "tracking_number": format!("parcel-{key}")})).into_response()
    };
    outside.handle(&headers, answer).await
}

async fn cancel(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    let answer = |ledger: &mut Ledger, key: &str| {
        if let Some(parcel) = ledger.shipments.get_mut(key) {
            parcel.taken_back = parcel.taken_back.max(1);
        }
        StatusCode::OK.into_response()
    };
    outside.handle(&headers, answer).await
}
