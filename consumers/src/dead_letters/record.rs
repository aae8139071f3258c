//! The record that goes back to its topic: the original bytes, or corrected ones, and the mark of a replay. Decides
//! before anything is published whether the stage can read it. No I/O.

use schemas::codec::{REPLAY_HEADER, decode_wanted};
use schemas::{OrderId, RawRecord, TopicPrefix};
use uuid::Uuid;

use super::rows::Content;
use crate::stages;

/// What a person corrected.
#[derive(Clone, Debug, Default)]
pub(super) struct Correction {
    pub(super) value: Option<Vec<u8>>,
    pub(super) key: Option<Uuid>,
}

/// A record ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    pub(super) topic: String,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Correction {
    pub(super) fn is_none(&self) -> bool {
        self.value.is_none() && self.key.is_none()
    }
}

/// What is published for a letter; the error says why its stage would reject it again, so that it is not published.
pub(super) fn prepare(
    content: Content,
    correction: &Correction,
    prefix: &TopicPrefix,
) -> Result<Replayed, String> {
    let role = prefix.role_of(&content.topic).ok_or_else(|| {
        format!("{} is no topic of this pipeline; is --topic-prefix right?", content.topic)
    })?;
    let stage = stages::find(&content.stage)
        .ok_or_else(|| format!("this build has no stage {}", content.stage))?;
    // As stages do, the one spelling of an order's key.
    let key = correction.key.map(|order| OrderId(order).to_string().into_bytes()).or(content.key);
    let value = correction.value.clone().or(content.value);
    let mut headers = content.headers;
    // One that was replayed before carries the mark of that time.
    headers.retain(|(name, _)| name != REPLAY_HEADER);
    headers.push((REPLAY_HEADER.to_owned(), Some(content.id.to_string().into_bytes())));
    let raw = RawRecord {
        key: key.as_deref(),
        value: value.as_deref(),
        headers: headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())),
    };
    match decode_wanted(role, raw, stage.inputs) {
        Ok(Some(_)) => {}
        Ok(None) => {
            return Err(format!("{} does not act on events of this type; discard it", stage.name));
        }
        Err(error) => return Err(format!("{}: {:#}", error.code(), anyhow::Error::new(error))),
    }
    // Both are there, or it could not have been read.
    Ok(Replayed {
        topic: content.topic,
        key: key.unwrap_or_default(),
        value: value.unwrap_or_default(),
        headers,
    })
}

#[cfg(test)]
mod tests {
    use schemas::{EventId, EventType};

    use super::*;

    const DATA: &str = r#"{"order_id":"018f0000-0000-7000-8000-000000000001","requested_at":"2026-11-22T10:00:00Z"}"#;
    const ORDER: Uuid = Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0001);

    fn letter(stage: &str, event_type: EventType, value: &str) -> Content {
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Content {
            id: 7,
            stage: stage.to_owned(),
            topic: "t.orders".to_owned(),
            partition: 0,
            offset: 42,
            key: Some(ORDER.to_string().into_bytes()),
            value: Some(value.as_bytes().to_vec()),
            headers: vec![
                header("content-type", "application/json"),
                header("ce_specversion", "1.0"),
                header("ce_id", &EventId(ORDER).to_string()),
                header("ce_type", event_type.as_str()),
                header("ce_source", "test"),
                header("ce_time", "2026-11-22T10:00:00Z"),
                header(REPLAY_HEADER, "3"),
                ("note".to_owned(), None),
            ],
        }
    }

    fn prefix() -> TopicPrefix {
        "t.".parse().unwrap()
    }

    #[test]
    fn a_replay_is_the_original_and_one_mark() {
        let content = letter("order", EventType::CancelRequested, DATA);

        let record = prepare(content.clone(), &Correction::default(), &prefix()).unwrap();

        assert_eq!(
            (record.topic, Some(record.key), Some(record.value)),
            (content.topic, content.key, content.value)
        );
        let mut expected = content.headers;
        expected.retain(|(name, _)| name != REPLAY_HEADER);
        expected.push((REPLAY_HEADER.to_owned(), Some(b"7".to_vec())));
        assert_eq!(record.headers, expected);
    }

    #[test]
    fn what_would_be_rejected_again_is_not_published() {
        let broken = letter("order", EventType::CancelRequested, "{}");
        let of_another = letter("payment", EventType::CancelRequested, DATA);
        let foreign = Content {
            topic: "orders".to_owned(),
            ..letter("order", EventType::CancelRequested, DATA)
        };
        let refused = |content| prepare(content, &Correction::default(), &prefix()).unwrap_err();

        assert!(refused(broken).starts_with("bad_data: "));
        assert!(refused(of_another).contains("payment does not act on"));
        assert!(refused(foreign).contains("--topic-prefix"));
    }

    #[test]
    fn a_value_or_key_can_be_corrected() {
        let broken = Content { key: None, ..letter("order", EventType::CancelRequested, "{}") };
        let correction = Correction { value: Some(DATA.into()), key: Some(ORDER) };

        let record = prepare(broken, &correction, &prefix()).unwrap();

        assert_eq!(record.key, ORDER.to_string().as_bytes());
        assert_eq!(record.value, DATA.as_bytes());
    }
}
