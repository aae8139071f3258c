//! The text form of short durations: `5s`, `500ms`, or seconds without a unit.

use std::time::Duration;

/// Parses a duration.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit): (&str, fn(u64) -> Duration) = if let Some(digits) = text.strip_suffix("ms")
    {
        (digits, Duration::from_millis)
    } else {
        (text.strip_suffix('s').unwrap_or(text), Duration::from_secs)
    };
    // More digits than any wait needs would be a mistake, and could overflow.
    let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok().map(unit) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_an_optional_unit_and_nothing_else() {
        assert_eq!(parse_duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("5"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        for bad in
            ["", "s", "ms", "-1s", "1.5s", "5m", "+5", " 5", "5 s", "99999999999s", "\u{0665}s"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
