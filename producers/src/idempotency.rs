//! Idempotency keys, and what this process remembers of them.
//!
//! The key alone decides the order id, so a retry is the same order even after everything here is forgotten.
//! Remembering adds two things: a retry is answered without writing again, and another body under a known key
//! is refused at the door instead of in a dead letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use schemas::{OrderId, Timestamp};

use crate::order::TENANT;
use schemas::orders::Fingerprint;

/// A key chosen by a client: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A text that is no idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 255 visible ASCII characters, bare or in double quotes")]
pub struct InvalidKey;

impl IdempotencyKey {
    /// Reads the value of the header `Idempotency-Key`: a quoted string of RFC 9651, as the IETF draft wants,
    /// or the bare text that most clients send. Both forms of a key are the same key.
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidKey> {
        let Some(quoted) = value.strip_prefix(b"\"") else { return Self::parse(value) };
        let quoted = quoted.strip_suffix(b"\"").ok_or(InvalidKey)?;
        let mut text = Vec::with_capacity(quoted.len());
        let mut bytes = quoted.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'\\' => match bytes.next() {
                    Some(&escaped @ (b'"' | b'\\')) => text.push(escaped),
                    _ => return Err(InvalidKey),
                },
                b'"' => return Err(InvalidKey),
                plain => text.push(plain),
            }
        }
        Self::parse(&text)
    }

    /// Reads a bare key.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidKey> {
        if (1..=255).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic) {
            Ok(Self(text.iter().map(|&byte| char::from(byte)).collect()))
        } else {
            Err(InvalidKey)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The order this key means, now and for ever.
    pub fn order_id(&self) -> OrderId {
        OrderId::from_idempotency_key(TENANT, &self.0)
    }
}

/// How much is known about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// First seen by this process; the projection may know an older order under the same key.
    Unverified = 0,
    /// The projection knows none, or could not be asked.
    Verified = 1,
    /// The broker has the order.
    Acknowledged = 2,
}

/// The order that holds a key.
#[derive(Debug)]
pub struct Claim {
    /// What was ordered.
    pub fingerprint: Fingerprint,
    /// When it was first accepted; a retry tells the same time.
    pub placed_at: Timestamp,
    standing: AtomicU8,
}

impl Claim {
    fn new(fingerprint: Fingerprint, placed_at: Timestamp, standing: Standing) -> Self {
        Self { fingerprint, placed_at, standing: AtomicU8::new(standing as u8) }
    }

    /// How much is known by now.
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            0 => Standing::Unverified,
            1 => Standing::Verified,
            _ => Standing::Acknowledged,
        }
    }

    /// Raises the standing; it never falls.
    pub fn raise(&self, standing: Standing) {
        self.standing.fetch_max(standing as u8, Ordering::AcqRel);
    }
}

/// The claims of recent keyed orders, bounded in number and age.
#[derive(Clone, Debug)]
pub struct Memory {
    claims: Cache<OrderId, Arc<Claim>>,
}

impl Memory {
    /// Remembers at most `orders`, each for `age`.
    pub fn new(orders: u64, age: Duration) -> Self {
        let claims = Cache::builder()
            .max_capacity(orders)
            .time_to_live(age)
            // The default policy prefers keys seen often and would turn away the new ones this is about.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { claims }
    }

    /// The claim on `order`: the one that is there, or else a new one with this fingerprint. Of several callers
    /// at once exactly one makes it.
    pub fn claim(&self, order: OrderId, fingerprint: Fingerprint) -> Arc<Claim> {
        self.claims
            .entry(order)
            .or_insert_with(|| {
                Arc::new(Claim::new(fingerprint, Timestamp::now(), Standing::Unverified))
            })
            .into_value()
    }

    /// Replaces the claim on `order` by what the projection says was accepted long ago.
    pub fn correct(&self, order: OrderId, fingerprint: Fingerprint, placed_at: Timestamp) {
        let claim = Claim::new(fingerprint, placed_at, Standing::Acknowledged);
        self.claims.insert(order, Arc::new(claim));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_key_and_the_bare_one_are_the_same() {
        let bare = IdempotencyKey::from_header(b"8e03978e-40d5").unwrap();

        assert_eq!(IdempotencyKey::from_header(b"\"8e03978e-40d5\"").unwrap(), bare);
        assert_eq!(IdempotencyKey::from_header(br#""a\"b\\c""#).unwrap().as_str(), r#"a"b\c"#);
    }

    #[test]
    fn keys_outside_the_rule_are_refused() {
        let long = "k".repeat(256);
        let keys: [&[u8]; 10] = [
            b"",
            b"\"\"",
            b"\"",
            b"\"a",
            b"\"a\"b\"",
            b"\"a\\",
            b"\"a\\n\"",
            b"two words",
            "k\u{fc}".as_bytes(),
            long.as_bytes(),
        ];
        for key in keys {
            let shown = String::from_utf8_lossy(key);
            assert!(IdempotencyKey::from_header(key).is_err(), "{shown}");
        }
        assert!(IdempotencyKey::parse(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn the_first_of_two_claims_stays() {
        let memory = Memory::new(10, Duration::from_secs(60));
        let order = IdempotencyKey::parse(b"k").unwrap().order_id();
        let (first, second) = (Fingerprint::of("a", "EUR", &[]), Fingerprint::of("b", "EUR", &[]));

        let claim = memory.claim(order, first);
        let again = memory.claim(order, second);

        assert_eq!(again.fingerprint, first);
        claim.raise(Standing::Acknowledged);
        claim.raise(Standing::Verified);
        assert_eq!(again.standing(), Standing::Acknowledged);
    }

    #[test]
    fn a_full_memory_still_takes_new_keys() {
        let memory = Memory::new(100, Duration::from_secs(60));
        let fingerprint = Fingerprint::of("a", "EUR", &[]);
        for n in 0..1_000 {
            memory.claim(OrderId::from_idempotency_key(TENANT, &n.to_string()), fingerprint);
        }
        memory.claims.run_pending_tasks();

        let newest = OrderId::from_idempotency_key(TENANT, "999");
        assert!(memory.claims.contains_key(&newest));
    }
}
