//! The copy of a dead letter that goes to its topic: the original bytes and headers, and where they came from. The row in
//! `dead_letters` has the bytes in any case, so a copy may go without them, and says so.

use schemas::{Topic, TopicPrefix};

use super::effects::OutgoingRecord;
use crate::store::dead_letters::DeadLetter;

/// Largest copy, in bytes; the topic of dead letters takes records of 2 MiB when this pipeline made it. What is larger would
/// be refused for ever, and everything behind it would wait.
const LARGEST: usize = 1_500_000;

/// Says how many bytes a copy goes without.
const OMITTED: &str = "dlq-omitted-bytes";

/// Headers that every copy ends with, in this order.
const ORIGIN: [&str; 7] = [
    "dlq-stage",
    "dlq-code",
    "dlq-original-topic",
    "dlq-original-partition",
    "dlq-original-offset",
    "dlq-original-timestamp",
    "dlq-consumer-group",
];

/// The copy of `letter`.
pub(crate) fn of(stage: &str, prefix: &TopicPrefix, letter: &DeadLetter<'_>) -> OutgoingRecord {
    let origin = [
        stage.to_owned(),
        letter.code.to_owned(),
        letter.topic.to_owned(),
        letter.partition.to_string(),
        letter.offset.to_string(),
        letter.timestamp_ms.to_string(),
        prefix.group(stage),
    ];
    let original = letter.header_names.iter().cloned().zip(letter.header_values.iter().cloned());
    let origin = ORIGIN.into_iter().zip(origin);
    let origin = origin.map(|(name, value)| (name.to_owned(), Some(value.into_bytes())));
    let copy = OutgoingRecord {
        topic: prefix.topic(Topic::DeadLetters),
        key: letter.key.map(<[u8]>::to_vec),
        value: letter.value.map(<[u8]>::to_vec),
        headers: original.chain(origin).collect(),
    };
    if bytes(&copy) > LARGEST { without_bytes(&copy).unwrap_or(copy) } else { copy }
}

/// The same without key, value and headers of the original; `None` when `record` is no copy, or has gone without before.
/// Key and value are empty rather than absent: null would be a tombstone.
pub(crate) fn without_bytes(record: &OutgoingRecord) -> Option<OutgoingRecord> {
    let start = record.headers.len().checked_sub(ORIGIN.len())?;
    let (original, origin) = record.headers.split_at(start);
    let is_copy = origin.iter().map(|(name, _)| name.as_str()).eq(ORIGIN);
    let is_shortened = matches!(original, [(name, _)] if name == OMITTED)
        && record.key.as_deref() == Some(&[])
        && record.value.as_deref() == Some(&[]);
    if !is_copy || is_shortened {
        return None;
    }
    let omitted = bytes(record) - bytes_of_headers(origin);
    let mut headers = vec![(OMITTED.to_owned(), Some(omitted.to_string().into_bytes()))];
    headers.extend_from_slice(origin);
    let topic = record.topic.clone();
    Some(OutgoingRecord { topic, key: Some(Vec::new()), value: Some(Vec::new()), headers })
}

/// Bytes of key, value and headers.
pub(crate) fn bytes(record: &OutgoingRecord) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    length(&record.key) + length(&record.value) + bytes_of_headers(&record.headers)
}

fn bytes_of_headers(headers: &[(String, Option<Vec<u8>>)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> DeadLetter<'a> {
        DeadLetter {
            topic: "t.orders",
            partition: 3,
            offset: 42,
            timestamp_ms: 7,
            order_id: None,
            event_id: None,
            code: "null_key",
            detail: "",
            key,
            value,
            header_names: vec!["dlq-stage".to_owned()],
            header_values: vec![Some(b"theirs".to_vec())],
        }
    }

    fn copy(key: Option<&[u8]>, value: Option<&[u8]>) -> OutgoingRecord {
        of("order", &"t.".parse().unwrap(), &letter(key, value))
    }

    #[test]
    fn what_was_null_stays_null_and_what_was_empty_stays_empty() {
        let nothing = copy(None, None);
        let empty = copy(Some(b""), Some(b""));

        assert_eq!((nothing.key, nothing.value), (None, None));
        assert_eq!((empty.key, empty.value), (Some(Vec::new()), Some(Vec::new())));
    }

    #[test]
    fn a_copy_goes_without_its_bytes_once_and_keeps_its_origin() {
        let whole = copy(None, Some(&[1; 100]));

        let short = without_bytes(&whole).unwrap();

        assert_eq!(short.headers[0], (OMITTED.to_owned(), Some(b"115".to_vec())));
        assert_eq!(short.headers[1..], whole.headers[1..]);
        assert_eq!((short.key.as_deref(), short.value.as_deref()), (Some(&[][..]), Some(&[][..])));
        assert_eq!(without_bytes(&short), None);
        assert_eq!(copy(None, Some(&vec![1; LARGEST])).value, Some(Vec::new()));
    }

    #[test]
    fn the_facts_of_a_stage_never_go_without_their_bytes() {
        let fact = OutgoingRecord { headers: Vec::new(), ..copy(None, None) };
        let other =
            OutgoingRecord { headers: vec![("ce_id".to_owned(), None); 9], ..copy(None, None) };

        assert_eq!((without_bytes(&fact), without_bytes(&other)), (None, None));
    }
}
