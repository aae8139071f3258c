//! W3C Trace Context: the id under which one order can be followed through every process.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Header of requests, answers and events.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A valid `traceparent`, version 00.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext([u8; 55]);

impl TraceContext {
    /// A new trace, sampled.
    pub fn fresh() -> Self {
        loop {
            let (trace, parent): (u128, u64) = (rand::random(), rand::random());
            // All zeros means "no trace".
            if trace != 0 && parent != 0 {
                return Self::assemble(trace, parent);
            }
        }
    }

    /// The caller's trace, or a new one when it sent none that is valid.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        headers
            .get(TRACEPARENT)
            .and_then(|value| Self::parse(value.as_bytes()))
            .unwrap_or_else(Self::fresh)
    }

    /// Reads a header. Later versions are read as far as version 00 goes, as the specification asks.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let hex =
            |range: &[u8]| range.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
        let known: &[u8; 55] = value.first_chunk()?;
        let (version, rest) = (&known[..2], &value[55..]);
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let parts = hex(version) && hex(&known[3..35]) && hex(&known[36..52]) && hex(&known[53..]);
        let length = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        let ids =
            known[3..35].iter().any(|&b| b != b'0') && known[36..52].iter().any(|&b| b != b'0');
        if !(dashes && parts && length && ids && version != b"ff") {
            return None;
        }
        let mut text = *known;
        text[..2].copy_from_slice(b"00");
        Some(Self(text))
    }

    fn assemble(trace: u128, parent: u64) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        for (n, digit) in text[3..35].iter_mut().enumerate() {
            *digit = HEX[(trace >> (124 - 4 * n) & 15) as usize];
        }
        for (n, digit) in text[36..52].iter_mut().enumerate() {
            *digit = HEX[(parent >> (60 - 4 * n) & 15) as usize];
        }
        Self(text)
    }

    /// The whole header.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0)
            .expect("hexadecimal digits and dashes, checked when it was made")
    }

    /// The 32 digits that name the trace.
    pub fn trace_id(&self) -> &str {
        &self.as_str()[3..35]
    }

    /// The header of an answer.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0)
            .expect("hexadecimal digits and dashes are a header's value")
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_trace_is_valid_and_new() {
        let (one, two) = (TraceContext::fresh(), TraceContext::fresh());

        assert_eq!(TraceContext::parse(one.as_str().as_bytes()), Some(one));
        assert_ne!(one.trace_id(), two.trace_id());
    }

    #[test]
    fn only_valid_headers_are_taken_over() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

        assert_eq!(TraceContext::parse(GOOD.as_bytes()).unwrap().as_str(), GOOD);
        let later = format!("cc{}-more", &GOOD[2..]);
        assert_eq!(TraceContext::parse(later.as_bytes()).unwrap().as_str(), GOOD);
        for bad in [
            String::new(),
            GOOD[1..].to_owned(),
            GOOD.to_uppercase(),
            format!("{GOOD}0"),
            format!("{GOOD}-more"),
            GOOD.replace('-', "_"),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
        ] {
            assert!(TraceContext::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
