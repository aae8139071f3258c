//! Dead letters as tables and documents: what `ls` and `show` print. Pure.

use schemas::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::filter::State;
use super::rows::{Action, Content, Letter, Waiting};
use super::text::{self, JsonBytes, safe};

/// A letter for programs.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    id: i64,
    stage: &'a str,
    code: &'a str,
    detail: &'a str,
    state: State,
    order_id: Option<Uuid>,
    event_id: Option<Uuid>,
    topic: &'a str,
    partition: i32,
    offset: i64,
    attempts: i32,
    /// Broker's time of the record.
    record_time: Option<String>,
    created_at: String,
    updated_at: String,
    /// How many of its order wait behind it.
    behind: i64,
}

/// A letter with everything that is known about it.
pub(super) struct Whole<'a> {
    pub(super) letter: &'a Letter,
    pub(super) content: &'a Content,
    pub(super) actions: &'a [Action],
    /// What waits of its order at its stage, itself included.
    pub(super) line: &'a [Waiting],
    /// Letters of the same record at other stages.
    pub(super) elsewhere: &'a [Letter],
}

#[derive(Serialize)]
struct WholeRow<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    key: Option<JsonBytes>,
    value: Option<JsonBytes>,
    headers: Vec<HeaderRow<'a>>,
    actions: Vec<ActionRow<'a>>,
    waits_behind: Vec<i64>,
    waiting_behind: Vec<i64>,
    elsewhere: Vec<ElsewhereRow<'a>>,
}

#[derive(Serialize)]
struct HeaderRow<'a> {
    name: &'a str,
    value: Option<JsonBytes>,
}

#[derive(Serialize)]
struct ActionRow<'a> {
    taken_at: String,
    action: &'a str,
    actor: &'a str,
}

#[derive(Serialize)]
struct ElsewhereRow<'a> {
    id: i64,
    stage: &'a str,
    state: State,
    code: &'a str,
}

impl<'a> Row<'a> {
    pub(super) fn of(letter: &'a Letter) -> Self {
        Self {
            id: letter.id,
            stage: &letter.stage,
            code: &letter.code,
            detail: &letter.detail,
            state: letter.state,
            order_id: letter.order_id,
            event_id: letter.event_id,
            topic: &letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            attempts: letter.attempts,
            record_time: letter.record_micros.map(|micros| text::time(Some(micros))),
            created_at: text::time(Some(letter.created_micros)),
            updated_at: text::time(Some(letter.updated_micros)),
            behind: letter.behind,
        }
    }
}

/// The table of `ls`.
pub(super) fn table(letters: &[Letter], now: Timestamp) -> String {
    let rows: Vec<[String; 9]> = letters
        .iter()
        .map(|letter| {
            [
                letter.id.to_string(),
                safe(&letter.stage).into_owned(),
                safe(&letter.code).into_owned(),
                letter.state.as_str().to_owned(),
                or_dash(letter.order_id),
                place(letter),
                text::age(letter.created_micros, now),
                letter.attempts.to_string(),
                letter.behind.to_string(),
            ]
        })
        .collect();
    text::table(
        ["ID", "STAGE", "CODE", "STATE", "ORDER", "RECORD", "AGE", "ATTEMPTS", "BEHIND"],
        &rows,
    )
}

impl Whole<'_> {
    /// For programs.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let (before, behind) = self.around();
        text::json_line(&WholeRow {
            row: Row::of(self.letter),
            key: self.content.key.as_deref().map(JsonBytes::of),
            value: self.content.value.as_deref().map(JsonBytes::of),
            headers: self
                .content
                .headers
                .iter()
                .map(|(name, value)| HeaderRow { name, value: value.as_deref().map(JsonBytes::of) })
                .collect(),
            actions: self
                .actions
                .iter()
                .map(|action| ActionRow {
                    taken_at: text::time(Some(action.taken_micros)),
                    action: &action.action,
                    actor: &action.actor,
                })
                .collect(),
            waits_behind: before.iter().map(|letter| letter.id).collect(),
            waiting_behind: behind.iter().map(|letter| letter.id).collect(),
            elsewhere: self
                .elsewhere
                .iter()
                .map(|other| ElsewhereRow {
                    id: other.id,
                    stage: &other.stage,
                    state: other.state,
                    code: &other.code,
                })
                .collect(),
        })
    }

    /// For a person.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let letter = self.letter;
        let mut text = String::new();
        let mut facts =
            |name: &str, fact: &str| text.push_str(&format!("{name:<10} {}\n", safe(fact)));
        facts("id", &letter.id.to_string());
        facts("stage", &letter.stage);
        facts("state", &format!("{}, attempt {}", letter.state.as_str(), letter.attempts));
        facts("code", &letter.code);
        facts("detail", &letter.detail);
        facts("order", &or_dash(letter.order_id));
        facts("event", &or_dash(letter.event_id));
        facts(
            "record",
            &format!("{}, appended {}", place(letter), text::time(letter.record_micros)),
        );
        let (created, updated) = (letter.created_micros, letter.updated_micros);
        facts(
            "set aside",
            &format!("{} ({} ago)", text::time(Some(created)), text::age(created, now)),
        );
        facts(
            "changed",
            &format!("{} ({} ago)", text::time(Some(updated)), text::age(updated, now)),
        );
        text.push_str(&section("headers", &self.headers()));
        text.push_str(&bytes_section("key", self.content.key.as_deref()));
        text.push_str(&bytes_section("value", self.content.value.as_deref()));
        let (before, behind) = self.around();
        text.push_str(&section("waits behind", &waiting(before)));
        text.push_str(&section("waiting behind it", &waiting(behind)));
        let elsewhere: Vec<String> = self
            .elsewhere
            .iter()
            .map(|l| format!("{}  {}  {}  {}", l.id, l.stage, l.state.as_str(), l.code))
            .collect();
        text.push_str(&section("the same record at other stages", &elsewhere));
        let actions: Vec<String> = self
            .actions
            .iter()
            .map(|action| {
                format!(
                    "{}  {}  {}",
                    text::time(Some(action.taken_micros)),
                    action.actor,
                    action.action
                )
            })
            .collect();
        text.push_str(&section("actions", &actions));
        text
    }

    fn headers(&self) -> Vec<String> {
        let shown = |value: &Option<Vec<u8>>| match value.as_deref() {
            None => "(no value)".to_owned(),
            Some(value) => text::bytes(value).replace('\n', " "),
        };
        self.content
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", shown(value)))
            .collect()
    }

    /// What waits before it and behind it; nothing when it waits no more.
    fn around(&self) -> (&[Waiting], &[Waiting]) {
        match self.line.iter().position(|waiting| waiting.id == self.letter.id) {
            Some(at) => (&self.line[..at], &self.line[at + 1..]),
            None => (&[], &[]),
        }
    }
}

fn waiting(letters: &[Waiting]) -> Vec<String> {
    letters
        .iter()
        .map(|letter| format!("{}  {}  {}", letter.id, letter.state.as_str(), letter.code))
        .collect()
}

/// Lines under a headline; nothing when there are none.
fn section(name: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {}\n", safe(line))).collect();
    format!("\n{name}\n{lines}")
}

fn bytes_section(name: &str, data: Option<&[u8]>) -> String {
    let Some(data) = data else { return format!("\n{name}: none\n") };
    let lines: String = text::bytes(data).lines().map(|line| format!("  {line}\n")).collect();
    format!("\n{name} ({} bytes, {})\n{lines}", data.len(), text::kind(data))
}

fn place(letter: &Letter) -> String {
    format!("{}[{}]@{}", safe(&letter.topic), letter.partition, letter.offset)
}

fn or_dash(id: Option<Uuid>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            id: 12,
            stage: "inventory".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
            offset: 17,
            record_micros: None,
            order_id: Some(Uuid::nil()),
            event_id: None,
            code: "bad_data".to_owned(),
            detail: "the data cannot be read".to_owned(),
            state: State::Open,
            attempts: 1,
            created_micros: 1_795_000_000_000_000,
            updated_micros: 1_795_000_000_000_000,
            behind: 1,
        }
    }

    #[test]
    fn a_listed_letter_says_where_it_came_from_and_what_it_holds_up() {
        let now = Timestamp::from_micros(1_795_000_090_000_000).unwrap();

        let table = table(&[letter()], now);

        let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        let nil = Uuid::nil().to_string();
        assert_eq!(
            words,
            ["12", "inventory", "bad_data", "open", &nil, "orders[3]@17", "1m", "1", "1"]
        );
    }

    #[test]
    fn a_shown_letter_cannot_take_over_the_terminal() {
        let letter = letter();
        let evil = "\u{1b}]0;x\u{7}\n\u{202e}".as_bytes().to_vec();
        let content = Content {
            id: 12,
            stage: letter.stage.clone(),
            topic: letter.topic.clone(),
            partition: 3,
            offset: 17,
            key: Some(evil.clone()),
            value: Some(evil.clone()),
            headers: vec![("\u{1b}[2J".to_owned(), Some(evil)), ("none".to_owned(), None)],
        };
        let line =
            [12, 13].map(|id| Waiting { id, state: State::Parked, code: "parked".to_owned() });
        let whole =
            Whole { letter: &letter, content: &content, actions: &[], line: &line, elsewhere: &[] };

        let (text, json) = (whole.text(Timestamp::now()), whole.json().unwrap());

        assert!(
            text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')),
            "{text:?}"
        );
        assert!(json.trim_end().chars().all(|c| !(c.is_control() || c == '\u{202e}')), "{json:?}");
        assert!(text.contains("none: (no value)"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["waiting_behind"], serde_json::json!([13]));
        assert_eq!(json["value"]["text"], "\u{1b}]0;x\u{7}\n\u{202e}");
    }
}
