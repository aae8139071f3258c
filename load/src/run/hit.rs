//! One request and its answer, as vegeta tells it, and what it means to us.

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use uuid::Uuid;

/// A result of vegeta.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hit {
    /// When it was sent, in nanoseconds since 1970.
    pub(crate) sent_at: u64,
    /// From sent to answered, in nanoseconds.
    pub(crate) latency: u64,
    /// Its number in the attack.
    pub(crate) number: u64,
    pub(crate) meaning: Meaning,
}

/// What a request was for and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    Accepted(Uuid),
    /// Turned away for good or for now: nothing was written.
    Rejected(String),
    /// No answer, or one that leaves open whether the order exists.
    Unknown(String),
    /// A cancellation or a read, and its status.
    Other(&'static str, u16),
    /// Never sent: vegeta had no target left.
    Nothing,
}

#[derive(Deserialize)]
struct Answer {
    order_id: Option<Uuid>,
    code: Option<String>,
}

impl Hit {
    /// Reads a line of `vegeta encode -to csv`.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let fields = split(line);
        let [sent_at, status, latency, _, _, error, body, _, number, method, url, headers, ..] =
            &fields[..]
        else {
            anyhow::bail!("it has {} fields", fields.len());
        };
        let status: u16 = status.parse().context("read the status")?;
        Ok(Self {
            sent_at: sent_at.parse().context("read the time")?,
            latency: latency.parse().context("read the latency")?,
            number: number.parse().context("read the number")?,
            meaning: meaning(method, url, status, error, body, headers),
        })
    }
}

fn meaning(
    method: &str,
    url: &str,
    status: u16,
    error: &str,
    body: &str,
    headers: &str,
) -> Meaning {
    match (method, url.ends_with("/cancel")) {
        ("", _) => return Meaning::Nothing,
        ("GET", _) => return Meaning::Other("read", status),
        (_, true) => return Meaning::Other("cancel", status),
        _ => {}
    }
    let body = STANDARD.decode(body).unwrap_or_default();
    let answer = serde_json::from_slice(&body).unwrap_or(Answer { order_id: None, code: None });
    let named = |code: Option<String>| match code {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    };
    match (status, answer) {
        (202, Answer { order_id: Some(order_id), .. }) => Meaning::Accepted(order_id),
        (0, _) => Meaning::Unknown(format!("no answer: {}", cause(error))),
        (400..=499, Answer { code, .. }) => Meaning::Rejected(named(code)),
        (503, Answer { code: Some(code), .. }) if code == "overloaded" => {
            let when = if says_when(headers) { "" } else { " without Retry-After" };
            Meaning::Rejected(named(Some(code)) + when)
        }
        (_, Answer { code, .. }) => Meaning::Unknown(named(code)),
    }
}

/// Whether the answer's headers, in base64, tell the client when to come back.
fn says_when(headers: &str) -> bool {
    let headers = STANDARD.decode(headers).unwrap_or_default();
    let mut lines = headers.split(|byte| *byte == b'\n');
    lines.any(|line| line.to_ascii_lowercase().starts_with(b"retry-after:"))
}

/// Without addresses, of which there are as many as connections.
fn cause(error: &str) -> &str {
    match error.rsplit(": ").next().unwrap_or(error) {
        // As vegeta prints an error that it does not know.
        "%!w(<nil>)" => "connection lost",
        cause => cause,
    }
}

/// The fields of a line; a field in quotes has its quotes doubled.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields.last_mut().expect("there is a first field").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => fields.last_mut().expect("there is a first field").push(letter),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: u16, error: &str, body: &str, method: &str, url: &str) -> String {
        let body = STANDARD.encode(body);
        let headers = STANDARD.encode("Content-Length: 2\r\nRetry-After: 1\r\n");
        format!(
            "1700000000000000001,{status},2500000,180,70,{error},{body},,7,{method},{url},{headers}"
        )
    }

    fn meaning_of(status: u16, error: &str, body: &str) -> Meaning {
        Hit::parse(&line(status, error, body, "POST", "http://api/orders")).unwrap().meaning
    }

    #[test]
    fn an_order_that_was_accepted_has_its_id() {
        let id = Uuid::new_v4();
        let body = format!(r#"{{"order_id":"{id}","status":"placed"}}"#);

        let hit = Hit::parse(&line(202, "", &body, "POST", "http://api/orders")).unwrap();

        let meaning = Meaning::Accepted(id);
        let sent_at = 1_700_000_000_000_000_001;
        assert_eq!(hit, Hit { sent_at, latency: 2_500_000, number: 7, meaning });
    }

    #[test]
    fn what_may_have_been_written_is_not_called_rejected() {
        let overloaded = meaning_of(503, "503 Service Unavailable", r#"{"code":"overloaded"}"#);
        assert_eq!(overloaded, Meaning::Rejected("503 overloaded".to_owned()));
        let open = meaning_of(503, "503 Service Unavailable", r#"{"code":"outcome_unknown"}"#);
        assert_eq!(open, Meaning::Unknown("503 outcome_unknown".to_owned()));
        let refused =
            r#""Post ""http://api/orders"": dial tcp 127.0.0.1:1, again: connection refused""#;
        let silent = meaning_of(0, refused, "");
        assert_eq!(silent, Meaning::Unknown("no answer: connection refused".to_owned()));
        assert_eq!(meaning_of(500, "", "oops"), Meaning::Unknown("500".to_owned()));
        // An acceptance that cannot be followed up is none.
        assert_eq!(meaning_of(202, "", "{}"), Meaning::Unknown("202".to_owned()));
    }

    #[test]
    fn an_overloaded_api_says_when_to_come_back() {
        let line = line(503, "", r#"{"code":"overloaded"}"#, "POST", "http://api/orders");
        let (without, _) = line.rsplit_once(',').unwrap();

        let Meaning::Rejected(code) = Hit::parse(&format!("{without},")).unwrap().meaning else {
            panic!("{line}")
        };
        assert_eq!(code, "503 overloaded without Retry-After");
    }

    #[test]
    fn cancellations_and_reads_are_no_orders() {
        let of = |method: &str, url: &str| {
            Hit::parse(&line(404, "404 Not Found", "", method, url)).unwrap().meaning
        };
        assert_eq!(of("POST", "http://api/orders/x/cancel"), Meaning::Other("cancel", 404));
        assert_eq!(of("GET", "http://api/orders/x"), Meaning::Other("read", 404));
    }
}
