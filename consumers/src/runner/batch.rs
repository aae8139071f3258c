//! Records of one partition, copied out of the client library into one arena, byte for byte.
//!
//! A record costs a few memory copies and no allocation of its own; the original bytes stay at hand for dead letters.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Headers, Message};
use schemas::RawRecord;

/// Stands for a header whose name is not UTF-8.
pub(crate) const UNREADABLE_NAME: &str = "unreadable-header-name";

/// Records in offset order, as one poll round found them.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    arena: Vec<u8>,
    records: Vec<Span>,
    headers: Vec<HeaderSpan>,
    /// The offset up to which there is nothing more to deliver, where it is beyond the last record.
    passed: Option<i64>,
}

#[derive(Debug)]
struct Span {
    offset: i64,
    timestamp_ms: i64,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

#[derive(Debug)]
struct HeaderSpan {
    name: Range<u32>,
    value: Option<Range<u32>>,
}

/// A record in a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    chunk: &'a Chunk,
    span: &'a Span,
}

/// What one transaction handles: consecutive records of one partition.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    chunks: Vec<Chunk>,
    records: usize,
    bytes: usize,
}

impl Chunk {
    /// No records: what lies before `next_offset` are markers of transactions and what they took back.
    pub(crate) fn passing(next_offset: i64) -> Self {
        Self { passed: Some(next_offset), ..Self::default() }
    }

    pub(crate) fn push(&mut self, message: &BorrowedMessage<'_>) {
        let first_header = index(self.headers.len());
        if let Some(headers) = message.headers() {
            for number in 0..headers.count() {
                // rdkafka 0.39 panics on a header name that is not UTF-8; one header that means nothing here must
                // not be the end of the process.
                let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(number)));
                let (name, value) = match &header {
                    Ok(Some(header)) => (header.key.as_bytes(), header.value),
                    Ok(None) | Err(_) => (UNREADABLE_NAME.as_bytes(), None),
                };
                let name = self.store(name);
                let value = value.map(|value| self.store(value));
                self.headers.push(HeaderSpan { name, value });
            }
        }
        let key = message.key().map(|key| self.store(key));
        let value = message.payload().map(|value| self.store(value));
        self.records.push(Span {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key,
            value,
            headers: first_header..index(self.headers.len()),
        });
    }

    /// Records without key, value and headers, for tests.
    #[cfg(test)]
    pub(crate) fn of(offsets: Range<i64>, timestamp_ms: i64) -> Self {
        let span = |offset| Span { offset, timestamp_ms, key: None, value: None, headers: 0..0 };
        Self { records: offsets.map(span).collect(), ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.len()
            + self.records.len() * size_of::<Span>()
            + self.headers.len() * size_of::<HeaderSpan>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Broker's time of the first record, in milliseconds since the epoch.
    pub(crate) fn first_timestamp_ms(&self) -> Option<i64> {
        self.records.first().map(|span| span.timestamp_ms)
    }

    /// Offset after everything this chunk stands for.
    fn next_offset(&self) -> Option<i64> {
        self.passed.or_else(|| Some(self.records.last()?.offset + 1))
    }

    fn store(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = index(self.arena.len());
        self.arena.extend_from_slice(bytes);
        start..index(self.arena.len())
    }

    fn bytes_at(&self, range: &Range<u32>) -> &[u8] {
        &self.arena[range.start as usize..range.end as usize]
    }
}

/// A chunk is closed long before 4 GiB: the buffer limit is a u32 of bytes.
fn index(length: usize) -> u32 {
    u32::try_from(length).expect("a chunk stays below the buffer limit, which fits u32")
}

impl Batch {
    pub(crate) fn add(&mut self, chunk: Chunk) {
        self.records += chunk.len();
        self.bytes += chunk.bytes();
        self.chunks.push(chunk);
    }

    pub(crate) fn len(&self) -> usize {
        self.records
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.records.iter().map(move |span| Record { chunk, span }))
    }

    /// The record numbered `number` by [`Self::records`].
    pub(crate) fn record(&self, number: usize) -> Record<'_> {
        let mut left = number;
        for chunk in &self.chunks {
            if let Some(span) = chunk.records.get(left) {
                return Record { chunk, span };
            }
            left -= chunk.len();
        }
        panic!("record {number} is not in a batch of {}", self.records)
    }

    /// Broker's time of the first record, in milliseconds since the epoch.
    pub(crate) fn first_timestamp_ms(&self) -> Option<i64> {
        self.chunks.iter().find_map(Chunk::first_timestamp_ms)
    }

    /// Offset after the batch.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        self.chunks.last()?.next_offset()
    }
}

impl<'a> Record<'a> {
    pub(crate) fn offset(&self) -> i64 {
        self.span.offset
    }

    pub(crate) fn timestamp_ms(&self) -> i64 {
        self.span.timestamp_ms
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        self.span.key.as_ref().map(|range| self.chunk.bytes_at(range))
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        self.span.value.as_ref().map(|range| self.chunk.bytes_at(range))
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let chunk = self.chunk;
        let range = self.span.headers.start as usize..self.span.headers.end as usize;
        chunk.headers[range].iter().map(|header| {
            (chunk.bytes_at(&header.name), header.value.as_ref().map(|v| chunk.bytes_at(v)))
        })
    }

    pub(crate) fn raw(
        &self,
    ) -> RawRecord<'a, impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a>> {
        RawRecord { key: self.key(), value: self.value(), headers: self.headers() }
    }
}
