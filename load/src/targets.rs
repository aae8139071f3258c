//! `order-load targets`: what vegeta attacks with, one JSON target a line, made when it is asked for.
//!
//! Target n depends only on the seed, the traffic, the run and n. Each order has a key of its own; the key decides the
//! order's id, so a later target can read or cancel the order without anybody having waited for an answer.

use std::io::{BufWriter, ErrorKind, Write, stdout};
use std::process::ExitCode;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use producers::generate::{Generator, Mix};
use producers::idempotency::IdempotencyKey;
use schemas::OrderId;
use serde_json::json;

/// A cancellation that can still be in time follows its order closely.
const CANCELLED_BEHIND: u64 = 10;
/// Readers come back for what they ordered a while ago.
const READ_BEHIND: u64 = 100;

/// What the requests are like.
#[derive(Args, Clone, Debug)]
pub struct Traffic {
    #[command(flatten)]
    pub mix: Mix,

    /// Share of requests that cancel an order placed shortly before.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub cancels: f64,

    /// Share of requests that read an order placed before.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub reads: f64,
}

/// What to print.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  order-load targets | vegeta attack -format=json -lazy -rate=100/s -duration=30s | vegeta report

Twice the same command is twice the same orders: the second time the API answers as it did the first. Another --run makes
other orders of the same content.")]
pub struct TargetsArgs {
    /// Where the API is.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub host: String,

    /// Makes the keys differ from those of every other run.
    #[arg(long, default_value = "targets", value_parser = run_name)]
    pub run: String,

    /// How many; without end when it is absent, as vegeta stops reading by itself.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,

    #[command(flatten)]
    pub traffic: Traffic,
}

/// Makes targets, one after the other.
#[derive(Clone, Debug)]
pub struct Targets {
    host: String,
    run: String,
    cancels: f64,
    reads: f64,
    seed: u64,
    orders: Generator,
    next: u64,
}

impl Targets {
    /// Starts with target 0 of `run`.
    pub fn new(host: &str, run: &str, traffic: &Traffic) -> Self {
        Self {
            host: host.trim_end_matches('/').to_owned(),
            run: run.to_owned(),
            cancels: traffic.cancels,
            reads: traffic.reads,
            seed: traffic.mix.seed,
            orders: Generator::new(traffic.mix.clone()),
            next: 0,
        }
    }

    fn target(&self, n: u64) -> String {
        let target = match self.kind(n) {
            Kind::Order => {
                let body = serde_json::to_vec(&self.orders.order(n))
                    .expect("an order is made of texts and numbers");
                json!({
                    "method": "POST",
                    "url": format!("{}/orders", self.host),
                    "header": {
                        "Content-Type": ["application/json"],
                        "Idempotency-Key": [self.key(n)],
                    },
                    "body": STANDARD.encode(body),
                })
            }
            Kind::Cancel(of) => json!({
                "method": "POST",
                "url": format!("{}/orders/{}/cancel", self.host, self.order_id(of)),
            }),
            Kind::Read(of) => json!({
                "method": "GET",
                "url": format!("{}/orders/{}", self.host, self.order_id(of)),
            }),
        };
        target.to_string()
    }

    fn kind(&self, n: u64) -> Kind {
        let drawn = unit(self.seed, n);
        let (kind, behind): (fn(u64) -> Kind, _) = if drawn < self.cancels {
            (Kind::Cancel, CANCELLED_BEHIND)
        } else if drawn < self.cancels + self.reads {
            (Kind::Read, READ_BEHIND)
        } else {
            return Kind::Order;
        };
        // The nearest target at that distance which places an order; before the first there is none.
        let earlier = n.saturating_sub(behind);
        let placed =
            (0..earlier).rev().find(|of| unit(self.seed, *of) >= self.cancels + self.reads);
        placed.map_or(Kind::Order, kind)
    }

    fn key(&self, n: u64) -> String {
        format!("{}-{n}", self.run)
    }

    fn order_id(&self, n: u64) -> OrderId {
        let key = IdempotencyKey::parse(self.key(n).as_bytes());
        key.expect("the name of a run and a number make a key").order_id()
    }
}

impl Iterator for Targets {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let target = self.target(self.next);
        self.next += 1;
        Some(target)
    }
}

enum Kind {
    Order,
    Cancel(u64),
    Read(u64),
}

/// Prints targets until there are enough, or nobody reads them any more.
pub fn run(args: &TargetsArgs) -> anyhow::Result<ExitCode> {
    let targets = Targets::new(&args.host, &args.run, &args.traffic);
    let count = args.count.unwrap_or(u64::MAX);
    let mut out = BufWriter::new(stdout().lock());
    let mut written = Ok(());
    for (_, target) in (0..count).zip(targets) {
        written = writeln!(out, "{target}");
        if written.is_err() {
            break;
        }
    }
    match written.and_then(|()| out.flush()) {
        // vegeta has had enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).context("write targets"),
    }
}

/// From 0 up to 1, the same for the same seed and number (the finaliser of SplitMix64).
fn unit(seed: u64, n: u64) -> f64 {
    let mut z = (seed ^ 0x6c6f_6164).wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("a share is a number from 0 to 1")
}

fn run_name(text: &str) -> Result<String, &'static str> {
    let is_good =
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_good = is_good && !text.contains('"');
    is_good.then(|| text.to_owned()).ok_or("a run has 1 to 64 visible characters without quotes")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use producers::request::parse_order;
    use serde_json::Value;

    use super::*;

    fn traffic(cancels: f64, reads: f64) -> Traffic {
        Traffic { mix: Mix::default(), cancels, reads }
    }

    fn some(count: usize, run: &str, traffic: &Traffic) -> Vec<Value> {
        let targets = Targets::new("http://api/", run, traffic).take(count);
        targets.map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    #[test]
    fn every_order_has_a_key_of_its_own_and_a_body_that_the_api_takes() {
        let targets = some(500, "a", &traffic(0.0, 0.0));

        let keys: BTreeSet<_> = targets
            .iter()
            .map(|target| target["header"]["Idempotency-Key"][0].to_string())
            .collect();
        assert_eq!(keys.len(), 500);
        for target in &targets {
            assert_eq!(
                (&target["method"], &target["url"]),
                (&"POST".into(), &"http://api/orders".into())
            );
            let body = STANDARD.decode(target["body"].as_str().unwrap()).unwrap();
            parse_order(&body).unwrap();
        }
    }

    #[test]
    fn the_same_run_is_the_same_and_another_run_has_other_keys() {
        let traffic = traffic(0.1, 0.1);

        assert_eq!(some(200, "a", &traffic), some(200, "a", &traffic));
        assert_ne!(some(1, "a", &traffic)[0]["header"], some(1, "b", &traffic)[0]["header"]);
        assert_eq!(some(1, "a", &traffic)[0]["body"], some(1, "b", &traffic)[0]["body"]);
    }

    #[test]
    fn cancels_and_reads_are_of_orders_placed_before_and_keep_their_shares() {
        let mut placed = BTreeSet::new();
        let (mut cancels, mut reads) = (0, 0);
        for target in some(10_000, "a", &traffic(0.05, 0.2)) {
            let url = target["url"].as_str().unwrap();
            let Some((_, rest)) = url.split_once("/orders/") else {
                let key = target["header"]["Idempotency-Key"][0].as_str().unwrap();
                let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
                placed.insert(key.order_id().to_string());
                continue;
            };
            let id = rest.trim_end_matches("/cancel");
            assert!(placed.contains(id), "{url}");
            if rest.ends_with("/cancel") { cancels += 1 } else { reads += 1 }
        }

        assert!((350..650).contains(&cancels), "{cancels}");
        assert!((1_700..2_300).contains(&reads), "{reads}");
    }
}
