//! W3C Trace Context: the id under which one order can be followed through every process.

use std::fmt;

/// A valid `traceparent`, version 00.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext([u8; 55]);

const TRACE: std::ops::Range<usize> = 3..35;
const SPAN: std::ops::Range<usize> = 36..52;
const FLAGS: usize = 53;

impl TraceContext {
    /// A new trace, sampled: whoever comes after may record it.
    pub fn fresh() -> Self {
        loop {
            let (trace, span): (u128, u64) = (rand::random(), rand::random());
            // All zeros means "no trace".
            if trace != 0 && span != 0 {
                return Self::assemble(trace, span);
            }
        }
    }

    /// Reads a header. Later versions are read as far as version 00 goes, as the specification asks.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let hex =
            |range: &[u8]| range.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
        let known: &[u8; 55] = value.first_chunk()?;
        let (version, rest) = (&known[..2], &value[55..]);
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let parts = hex(version) && hex(&known[TRACE]) && hex(&known[SPAN]) && hex(&known[FLAGS..]);
        let length = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        let ids = [TRACE, SPAN].into_iter().all(|id| known[id].iter().any(|&b| b != b'0'));
        if !(dashes && parts && length && ids && version != b"ff") {
            return None;
        }
        let mut text = *known;
        text[..2].copy_from_slice(b"00");
        Some(Self(text))
    }

    /// Whether `header`, which may be anything, ends like one that is sampled: a glance for those who read many. `false` is
    /// certain.
    pub fn may_be_sampled(header: &str) -> bool {
        let digit = header.chars().next_back().and_then(|digit| digit.to_digit(16));
        digit.is_some_and(|digit| digit & 1 == 1)
    }

    /// Another span of the same trace, decided upon alike.
    pub fn child(&self) -> Self {
        loop {
            if let Some(child) = self.with_span(rand::random()) {
                return child;
            }
        }
    }

    /// The same with `span` as its id; zero is none.
    pub fn with_span(&self, span: u64) -> Option<Self> {
        let mut text = self.0;
        write_hex(&mut text[SPAN], span.into());
        (span != 0).then_some(Self(text))
    }

    /// The same with another decision.
    pub fn sampled(&self, sampled: bool) -> Self {
        let mut text = self.0;
        write_hex(&mut text[FLAGS..], u128::from((self.flags() & !1) | u8::from(sampled)));
        Self(text)
    }

    /// Whether somebody decided to record it.
    pub fn is_sampled(&self) -> bool {
        self.flags() & 1 == 1
    }

    /// The whole header.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0)
            .expect("hexadecimal digits and dashes, checked when it was made")
    }

    /// The 32 digits that name the trace.
    pub fn trace_id(&self) -> &str {
        &self.as_str()[TRACE]
    }

    /// The 16 digits that name the span.
    pub fn span_id(&self) -> &str {
        &self.as_str()[SPAN]
    }

    pub(super) fn flags(&self) -> u8 {
        u8::from_str_radix(&self.as_str()[FLAGS..], 16).expect("two hexadecimal digits")
    }

    fn assemble(trace: u128, span: u64) -> Self {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        write_hex(&mut text[TRACE], trace);
        write_hex(&mut text[SPAN], span.into());
        Self(text)
    }
}

fn write_hex(digits: &mut [u8], number: u128) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let last = digits.len() - 1;
    for (n, digit) in digits.iter_mut().enumerate() {
        *digit = HEX[(number >> (4 * (last - n)) & 15) as usize];
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

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_fresh_trace_is_valid_and_new() {
        let (one, two) = (TraceContext::fresh(), TraceContext::fresh());

        assert_eq!(TraceContext::parse(one.as_str().as_bytes()), Some(one));
        assert_ne!(one.trace_id(), two.trace_id());
        assert!(one.is_sampled());
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace() {
        let parent = TraceContext::parse(GOOD.as_bytes()).unwrap();

        let child = parent.child();

        assert_eq!((child.trace_id(), child.is_sampled()), (parent.trace_id(), true));
        assert_ne!(child.span_id(), parent.span_id());
        assert_eq!(parent.with_span(0x00f0_67aa_0ba9_02b7), Some(parent));
        assert_eq!(parent.with_span(0), None);
        assert_eq!(TraceContext::parse(child.as_str().as_bytes()), Some(child));
    }

    #[test]
    fn a_decision_changes_one_bit() {
        let parent = TraceContext::parse(GOOD.replace("-01", "-ff").as_bytes()).unwrap();

        assert!(parent.sampled(false).as_str().ends_with("-fe"));
        assert!(!parent.sampled(false).is_sampled());
        assert!(!TraceContext::may_be_sampled(parent.sampled(false).as_str()));
        assert!(TraceContext::may_be_sampled(parent.as_str()));
        assert!(!TraceContext::may_be_sampled(""));
        assert_eq!(parent.sampled(false).sampled(true), parent);
    }

    #[test]
    fn only_valid_headers_are_taken_over() {
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
