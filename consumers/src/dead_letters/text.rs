//! Writes what strangers sent so that a person can read it and a terminal is not led astray by it. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use schemas::Timestamp;
use serde::Serialize;
use serde::de::IgnoredAny;

/// Most characters of a key, value or header that are shown; `--raw` gives all of a value.
const MAX_TEXT_CHARS: usize = 16 * 1024;
/// Most bytes that are dumped when they are no text.
const MAX_DUMP_BYTES: usize = 512;
const DUMP_WIDTH: usize = 16;

/// `text` on one line: what moves a cursor, changes colours, reverses or hides text is spelt out as `\uXXXX`, which
/// inside a JSON string still means the same.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_safe(&mut safe, c);
    }
    Cow::Owned(safe)
}

/// One JSON object on one line.
pub(crate) fn json_line(data: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(data)?;
    Ok(format!("{}\n", safe(&json)))
}

/// Bytes as text: as they are, or as a hex dump when they are not UTF-8. Several lines, bounded.
pub(super) fn bytes(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if is_json(text) => indented(text),
        Ok(text) => {
            let mut lines = Lines::default();
            for c in text.chars() {
                if c == '\n' {
                    lines.text.push(c)
                } else {
                    push_safe(&mut lines.text, c)
                }
                if lines.is_full() {
                    return lines.cut(data.len());
                }
            }
            lines.text
        }
        Err(_) => dump(data),
    }
}

/// What the bytes are, for a headline.
pub(super) fn kind(data: &[u8]) -> &'static str {
    match std::str::from_utf8(data) {
        Ok(text) if is_json(text) => "JSON",
        Ok(_) => "text",
        Err(_) => "not UTF-8",
    }
}

/// Bytes for a JSON document, without loss.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JsonBytes {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Hex(String),
}

impl JsonBytes {
    pub(super) fn of(data: &[u8]) -> Self {
        match std::str::from_utf8(data) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(data.iter().fold(String::new(), |mut hex, byte| {
                push_hex(&mut hex, *byte);
                hex
            })),
        }
    }
}

/// A person's word for a reason or a name: one line without control characters, at most `max_chars` long.
pub(super) fn cleaned(text: &str, max_chars: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| is_unsafe(c) || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(max_chars).collect()
}

/// A time as RFC 3339; `-` for one that no clock of ours would show.
pub(crate) fn time(micros: Option<i64>) -> String {
    match micros.map(Timestamp::from_micros) {
        Some(Ok(time)) => time.to_string(),
        _ => "-".to_owned(),
    }
}

/// How long ago, in the two largest units at most.
pub(super) fn age(micros: i64, now: Timestamp) -> String {
    let seconds = (now.as_micros() - micros).max(0) / 1_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..172_800 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d"),
    }
}

/// Rows in columns as wide as their widest cell; the last one runs free.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        for (number, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let width = if number + 1 == N { 0 } else { width + 2 };
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        text.push('\n');
    }
    text
}

/// Writes to standard output. A reader that closed its end has what it wanted: `… | head` is no failure.
pub(crate) fn print(data: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Control characters, and those that reorder or hide what stands around them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_safe(text: &mut String, c: char) {
    if !is_unsafe(c) {
        return text.push(c);
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(text, "\\u{unit:04x}").expect("writing to a string never fails");
    }
}

fn push_hex(text: &mut String, byte: u8) {
    write!(text, "{byte:02x}").expect("writing to a string never fails");
}

/// Objects and arrays. A bare number or word is JSON too, but nothing to lay out.
fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Lays out valid JSON token by token, so that numbers, repeated names and their order stay as they were sent.
fn indented(json: &str) -> String {
    let mut lines = Lines::default();
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if lines.is_full() {
            return lines.cut(json.len());
        }
        if in_string {
            push_safe(&mut lines.text, c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => {}
            '{' | '[' => {
                lines.text.push(c);
                while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                match rest.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => lines.text.push(end),
                    None => lines.open(),
                }
            }
            '}' | ']' => {
                lines.close();
                lines.text.push(c);
            }
            ',' => {
                lines.text.push(c);
                lines.start();
            }
            ':' => lines.text.push_str(": "),
            _ => {
                in_string = c == '"';
                push_safe(&mut lines.text, c);
            }
        }
    }
    lines.text
}

fn dump(data: &[u8]) -> String {
    let mut text = String::new();
    for (number, row) in data[..data.len().min(MAX_DUMP_BYTES)].chunks(DUMP_WIDTH).enumerate() {
        let hex = row.iter().fold(String::new(), |mut hex, byte| {
            push_hex(&mut hex, *byte);
            hex.push(' ');
            hex
        });
        let plain: String = row
            .iter()
            .map(|&b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '.' })
            .collect();
        let width = DUMP_WIDTH * 3;
        writeln!(text, "{:06x}  {hex:<width$} {plain}", number * DUMP_WIDTH)
            .expect("writing to a string never fails");
    }
    text.truncate(text.trim_end().len());
    if data.len() > MAX_DUMP_BYTES {
        write!(text, "\n… {} of {} bytes shown", MAX_DUMP_BYTES, data.len())
            .expect("writing to a string never fails");
    }
    text
}

/// Text that grows up to a bound.
#[derive(Default)]
struct Lines {
    text: String,
    depth: usize,
}

impl Lines {
    fn is_full(&self) -> bool {
        self.text.len() >= MAX_TEXT_CHARS
    }

    fn start(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.depth));
    }

    fn open(&mut self) {
        self.depth += 1;
        self.start();
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.start();
    }

    fn cut(mut self, all: usize) -> String {
        write!(self.text, "\n… cut; all of it has {all} bytes")
            .expect("writing to a string never fails");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_sender_wrote_reaches_the_terminal_as_a_command() {
        let evil = "\u{1b}[2J\u{9b}31m\u{202e}abc\u{7}\r\n\u{e0041}";

        let shown = [
            safe(evil).into_owned(),
            bytes(evil.as_bytes()),
            bytes("{\"a\":\"\u{202e}\u{9b}\"}".as_bytes()),
        ];

        for text in shown {
            assert!(text.chars().all(|c| c == '\n' || !is_unsafe(c)), "{text:?}");
        }
        assert_eq!(safe("\u{1b}[0m"), "\\u001b[0m");
    }

    #[test]
    fn what_is_escaped_in_json_still_means_the_same() {
        let data = vec!["\u{9b}\u{202e}\u{7f}\u{e0041}".to_owned()];

        let line = json_line(&data).unwrap();

        assert!(line.trim_end().chars().all(|c| !is_unsafe(c)), "{line:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&line).unwrap(), data);
    }

    #[test]
    fn json_is_laid_out_without_touching_what_it_says() {
        let text = r#" {"b":1.50,"a":{"x":[ ],"y":"{,:\"}"},"b":18446744073709551616,"l":[1,2]} "#;

        let shown = bytes(text.as_bytes());

        assert_eq!(
            shown,
            r#"{
  "b": 1.50,
  "a": {
    "x": [],
    "y": "{,:\"}"
  },
  "b": 18446744073709551616,
  "l": [
    1,
    2
  ]
}"#
        );
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let deep = format!("{}{}{}", "[".repeat(100), "1,".repeat(50_000) + "1", "]".repeat(100));

        assert!(bytes(deep.as_bytes()).len() < MAX_TEXT_CHARS + 512);
        assert!(bytes("x".repeat(1 << 20).as_bytes()).len() < MAX_TEXT_CHARS + 512);
        let dump = bytes(&[0xff; 100_000]);
        assert!(dump.len() < 4096);
        assert!(dump.ends_with("512 of 100000 bytes shown"));
    }

    #[test]
    fn bytes_that_are_no_text_are_dumped() {
        assert_eq!(bytes(b"\xffabc"), format!("000000  {:<48} .abc", "ff 61 62 63"));
        assert_eq!(JsonBytes::of(b"\xff\x00"), JsonBytes::Hex("ff00".to_owned()));
    }

    #[test]
    fn an_actor_is_one_short_line() {
        assert_eq!(cleaned("  ann\n\u{1b}[1m@host ", 100), "ann [1m@host");
        assert_eq!(cleaned(&"x".repeat(500), 100).len(), 100);
    }

    #[test]
    fn ages_are_short() {
        let now = Timestamp::parse("2026-11-22T00:00:00Z").unwrap();
        let ago = |seconds: i64| age(now.as_micros() - seconds * 1_000_000, now);

        assert_eq!(
            [ago(-5), ago(59), ago(61), ago(3 * 3600 + 300), ago(4 * 86_400)],
            ["0s", "59s", "1m", "3h05m", "4d"]
        );
    }
}
