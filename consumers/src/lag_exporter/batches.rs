//! Finds the first record at or after an offset in the bytes of a log: past transaction markers, records of aborted
//! transactions, and gaps that compaction left. Pure; any bytes are safe.
//!
//! The time is exact where a batch is not compressed or starts at the offset, as committed positions mostly do. Inside
//! a compressed batch it is interpolated between the batch's first and last time, which are as far apart as the producer
//! lingered; unpacking megabytes for less than that would cost the broker's clients more than it tells.

const HEADER: usize = 61;
const MAGIC: i8 = 2;

const COMPRESSION: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// The base time is another one: when tombstones may go.
const DELETE_HORIZON: i16 = 1 << 6;

/// What the bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Record {
        offset: i64,
        time_ms: i64,
    },
    /// No record before `next`, which is where to read on.
    Nothing {
        next: i64,
    },
}

/// A transaction that came to nothing: whose, and its first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
}

struct Batch<'a> {
    base: i64,
    last: i64,
    attributes: i16,
    base_ms: i64,
    max_ms: i64,
    producer_id: i64,
    count: i32,
    records: &'a [u8],
}

/// The first record from `offset` on.
pub(super) fn first_record(mut log: &[u8], offset: i64, aborted: &[Aborted]) -> Found {
    let mut next = offset;
    let mut aborting: Vec<i64> = Vec::new();
    let mut pending: Vec<Aborted> = aborted.to_vec();
    // The last batch may be cut off.
    while let Some((batch, rest)) = Batch::split(log) {
        log = rest;
        pending.retain(|aborted| {
            let begun = aborted.first_offset <= batch.last;
            if begun {
                aborting.push(aborted.producer_id);
            }
            !begun
        });
        if batch.has(CONTROL) {
            aborting.retain(|producer| *producer != batch.producer_id);
        } else if batch.last >= next
            && !(batch.has(TRANSACTIONAL) && aborting.contains(&batch.producer_id))
            && let Some((offset, time_ms)) = batch.first_from(next)
        {
            return Found::Record { offset, time_ms };
        }
        next = next.max(batch.last.saturating_add(1));
    }
    Found::Nothing { next }
}

impl<'a> Batch<'a> {
    fn split(log: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = usize::try_from(int32(log, 8)?).ok()?.checked_add(12)?;
        let (batch, rest) = log.split_at_checked(length)?;
        if batch.len() < HEADER || int8(batch, 16)? != MAGIC {
            return None;
        }
        let base = int64(batch, 0)?;
        let batch = Self {
            base,
            last: base.checked_add(int32(batch, 23)?.max(0).into())?,
            attributes: int16(batch, 21)?,
            base_ms: int64(batch, 27)?,
            max_ms: int64(batch, 35)?,
            producer_id: int64(batch, 43)?,
            count: int32(batch, 57)?,
            records: &batch[HEADER..],
        };
        Some((batch, rest))
    }

    fn has(&self, attribute: i16) -> bool {
        self.attributes & attribute != 0
    }

    fn first_from(&self, offset: i64) -> Option<(i64, i64)> {
        // Compaction may leave a batch without records.
        if self.count <= 0 {
            return None;
        }
        if !self.has(COMPRESSION) {
            return self.scan(offset);
        }
        let offset = offset.max(self.base);
        let time_ms = if self.has(LOG_APPEND_TIME | DELETE_HORIZON) || self.last == self.base {
            self.max_ms
        } else {
            let share = (offset - self.base) as f64 / (self.last - self.base) as f64;
            let span = self.max_ms.saturating_sub(self.base_ms);
            self.base_ms.saturating_add((span as f64 * share).round() as i64)
        };
        Some((offset, time_ms))
    }

    fn scan(&self, offset: i64) -> Option<(i64, i64)> {
        let mut rest = self.records;
        for _ in 0..self.count {
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            let (mut record, after) = rest.split_at_checked(length)?;
            rest = after;
            record = record.get(1..)?; // attributes, all unused
            let time = self.base_ms.saturating_add(varint(&mut record)?);
            let found = self.base.saturating_add(varint(&mut record)?);
            if found >= offset {
                let time = if self.has(LOG_APPEND_TIME) { self.max_ms } else { time };
                return Some((found, time));
            }
        }
        None
    }
}

/// A zigzag-encoded number of seven bits per byte.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    None
}

fn int8(bytes: &[u8], at: usize) -> Option<i8> {
    bytes.get(at).map(|byte| byte.cast_signed())
}

fn int16(bytes: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn int32(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn int64(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRODUCER: i64 = 7;

    /// A batch whose records are `(offset delta, time delta)`.
    fn batch(base: i64, last_delta: i32, attributes: i16, records: &[(i64, i64)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (offset_delta, time_delta) in records {
            let mut record = vec![0];
            zigzag(&mut record, *time_delta);
            zigzag(&mut record, *offset_delta);
            record.extend([1, 1, 0]); // no key, no value, no headers
            zigzag(&mut body, record.len() as i64);
            body.extend(record);
        }
        let mut batch = Vec::new();
        batch.extend(base.to_be_bytes());
        batch.extend(((HEADER - 12 + body.len()) as i32).to_be_bytes());
        batch.extend([0; 4]);
        batch.push(2);
        batch.extend([0; 4]);
        batch.extend(attributes.to_be_bytes());
        batch.extend(last_delta.to_be_bytes());
        batch.extend(1_000_i64.to_be_bytes());
        batch.extend(2_000_i64.to_be_bytes());
        batch.extend(PRODUCER.to_be_bytes());
        batch.extend([0; 6]);
        batch.extend((records.len() as i32).to_be_bytes());
        batch.extend(body);
        batch
    }

    fn zigzag(out: &mut Vec<u8>, value: i64) {
        let mut value = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn record(offset: i64, time_ms: i64) -> Found {
        Found::Record { offset, time_ms }
    }

    #[test]
    fn the_record_at_the_offset_tells_its_own_time() {
        let log = batch(10, 2, 0, &[(0, 0), (1, 300), (2, 1_000)]);

        assert_eq!(first_record(&log, 11, &[]), record(11, 1_300));
    }

    #[test]
    fn past_a_gap_the_next_record_counts() {
        let mut log = batch(10, 5, 0, &[(0, 0)]); // compacted: 11 to 15 are gone
        log.extend(batch(20, 1, 0, &[(1, 5)]));

        assert_eq!(first_record(&log, 11, &[]), record(21, 1_005));
    }

    #[test]
    fn markers_are_no_records() {
        let log = batch(10, 0, TRANSACTIONAL | CONTROL, &[(0, 0)]);

        assert_eq!(first_record(&log, 10, &[]), Found::Nothing { next: 11 });
    }

    #[test]
    fn records_of_an_aborted_transaction_are_none_and_those_after_it_are() {
        let mut log = batch(10, 1, TRANSACTIONAL, &[(0, 0), (1, 0)]);
        log.extend(batch(12, 0, TRANSACTIONAL | CONTROL, &[(0, 0)]));
        let aborted = [Aborted { producer_id: PRODUCER, first_offset: 10 }];
        assert_eq!(first_record(&log, 10, &aborted), Found::Nothing { next: 13 });

        log.extend(batch(13, 0, TRANSACTIONAL, &[(0, 9)]));

        assert_eq!(first_record(&log, 10, &aborted), record(13, 1_009));
        assert_eq!(first_record(&log, 10, &[]), record(10, 1_000), "when it was committed");
    }

    #[test]
    fn inside_a_compressed_batch_time_passes_evenly() {
        let compressed = 4;
        let mut log = batch(10, 4, compressed, &[]);
        log[57..61].copy_from_slice(&5_i32.to_be_bytes());

        assert_eq!(first_record(&log, 10, &[]), record(10, 1_000));
        assert_eq!(first_record(&log, 12, &[]), record(12, 1_500));
    }

    #[test]
    fn the_broker_s_time_of_a_batch_is_that_of_each_record() {
        let log = batch(10, 1, LOG_APPEND_TIME, &[(0, 0), (1, 1)]);

        assert_eq!(first_record(&log, 10, &[]), record(10, 2_000));
    }

    #[test]
    fn a_batch_that_is_cut_off_says_nothing() {
        let log = batch(10, 1, 0, &[(0, 0), (1, 1)]);

        for cut in 0..log.len() {
            assert_eq!(first_record(&log[..cut], 10, &[]), Found::Nothing { next: 10 });
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_safe(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..120,
            offset in any::<i64>(),
        ) {
            first_record(&bytes, offset, &[]);
            let mut log = batch(offset, 2, 0, &[(0, 0), (1, 300), (2, 1_000)]);
            for (place, byte) in log.iter_mut().skip(at).zip(&bytes) {
                *place = *byte;
            }
            first_record(&log, offset, &[Aborted { producer_id: PRODUCER, first_offset: 0 }]);
        }
    }
}
