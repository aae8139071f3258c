//! The other ends of Alertmanager: webhook, pager, chat and dead man over HTTP, and mail. Keeps what arrives and when, and can
//! be told to refuse, which is a fault like any other.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::notification::{Labels, Notification};

/// One alert of one notification.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) firing: bool,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
}

impl Told {
    pub(crate) fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }
}

/// Where alerts arrive.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) http: u16,
    pub(crate) mail: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    told: Vec<Told>,
    /// When Watchdog reached the dead man.
    watchdog: Vec<Instant>,
    /// How much each end was sent.
    messages: BTreeMap<String, u64>,
    refuses: Option<&'static str>,
}

impl Receiver {
    /// Receives until this process ends.
    pub(crate) async fn listen() -> anyhow::Result<Self> {
        let bind =
            async || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen for alerts");
        let (web, mail) = (bind().await?, bind().await?);
        let this = Self {
            http: web.local_addr()?.port(),
            mail: mail.local_addr()?.port(),
            seen: Arc::default(),
        };
        let routes = Router::new().route("/{end}", post(receive)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(web, routes).await });
        let mails = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = mail.accept().await {
                let mails = mails.clone();
                // A client that leaves early has sent nothing to count.
                tokio::spawn(async move { take_mail(stream).await.map(|()| mails.count("mail")) });
            }
        });
        Ok(this)
    }

    /// From here on `end` refuses what it is sent, as after its token was revoked; `None` heals it.
    pub(crate) fn refuse(&self, end: Option<&'static str>) {
        self.seen().refuses = end;
    }

    /// What was told since `from`, in order.
    pub(crate) fn since(&self, from: Instant) -> Vec<Told> {
        self.seen().told.iter().filter(|told| told.at >= from).cloned().collect()
    }

    /// Alerts whose last word is that they fire.
    pub(crate) fn firing(&self) -> Vec<Labels> {
        let mut last: BTreeMap<Labels, bool> = BTreeMap::new();
        for told in &self.seen().told {
            last.insert(told.labels.clone(), told.firing);
        }
        last.into_iter().filter(|(_, firing)| *firing).map(|(labels, _)| labels).collect()
    }

    /// The longest time since `from` in which the dead man heard nothing; until now, if he still waits.
    pub(crate) fn longest_silence(&self, from: Instant) -> Duration {
        let seen = self.seen();
        let heard = seen.watchdog.iter().filter(|at| **at >= from).copied();
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in heard.chain([Instant::now()]) {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        longest
    }

    /// How many messages each end got.
    pub(crate) fn messages(&self) -> BTreeMap<String, u64> {
        self.seen().messages.clone()
    }

    fn count(&self, end: &str) {
        *self.seen().messages.entry(end.to_owned()).or_default() += 1;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no code panics while it holds this lock")
    }
}

async fn receive(
    Path(end): Path<String>,
    State(receiver): State<Receiver>,
    body: Bytes,
) -> StatusCode {
    receiver.count(&end);
    let at = Instant::now();
    let mut seen = receiver.seen();
    if seen.refuses == Some(end.as_str()) {
        return StatusCode::FORBIDDEN;
    }
    match end.as_str() {
        "deadman" => seen.watchdog.push(at),
        "alerts" => {
            let Ok(Notification { alerts }) = serde_json::from_slice(&body) else {
                return StatusCode::BAD_REQUEST;
            };
            seen.told.extend(alerts.into_iter().map(|alert| Told {
                at,
                firing: alert.status == "firing",
                labels: alert.labels,
                annotations: alert.annotations,
            }));
        }
        // The pager's protocol says accepted, everybody else is content with that.
        _ => return StatusCode::ACCEPTED,
    }
    StatusCode::OK
}

/// As much of SMTP as a client needs to get rid of a mail.
async fn take_mail(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 receiver\r\n").await?;
    let mut in_mail = false;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let answer = match (in_mail, line.trim_end()) {
            (true, ".") => {
                in_mail = false;
                "250 kept"
            }
            (true, _) => continue,
            (false, "DATA") => {
                in_mail = true;
                "354 go on"
            }
            (false, "QUIT") => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            (false, _) => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}
