//! A Produce request byte by byte, for records that no client library would write: one batch, uncompressed, to the one broker.
//! Knows nothing about what the bytes mean.

use anyhow::{Context, ensure};
use load::records::Record;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Produce, in the oldest version that every 4.x broker knows.
const API_KEY: i16 = 0;
const API_VERSION: i16 = 3;
const CORRELATION: i32 = 1;
const ALL_IN_SYNC: i16 = -1;
const TIMEOUT_MS: i32 = 10_000;

/// A record whose header names may be any bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl From<Record> for RawRecord {
    fn from(record: Record) -> Self {
        let headers = record.headers.into_iter().map(|(name, value)| (name.into_bytes(), value));
        Self { key: record.key, value: record.value, headers: headers.collect() }
    }
}

/// Writes `records` to a partition and waits until the broker has them.
pub(crate) async fn produce(
    broker: &str,
    topic: &str,
    partition: i32,
    records: &[RawRecord],
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(broker).await.context("connect to the broker")?;
    stream.write_all(&request(topic, partition, &batch(records))).await.context("send a batch")?;
    let length = usize::try_from(stream.read_i32().await.context("read the answer")?)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.context("read the answer")?;
    // Correlation, one topic with its name, one partition with its number, and then the error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let error = answer.get(at..at + 2).context("the answer ends early")?;
    ensure!(error == [0, 0], "the broker answers with error {error:?}");
    Ok(())
}

fn request(topic: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(API_KEY.to_be_bytes());
    body.extend(API_VERSION.to_be_bytes());
    body.extend(CORRELATION.to_be_bytes());
    short_string(&mut body, "order-load");
    body.extend((-1_i16).to_be_bytes()); // no transaction
    body.extend(ALL_IN_SYNC.to_be_bytes());
    body.extend(TIMEOUT_MS.to_be_bytes());
    body.extend(1_i32.to_be_bytes()); // topics
    short_string(&mut body, topic);
    body.extend(1_i32.to_be_bytes()); // partitions
    body.extend(partition.to_be_bytes());
    sized(&body, batch)
}

/// `body` and `batch`, which has its length before it, as one frame.
fn sized(body: &[u8], batch: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| i32::try_from(bytes).unwrap().to_be_bytes();
    let mut frame = length(body.len() + 4 + batch.len()).to_vec();
    frame.extend(body);
    frame.extend(length(batch.len()));
    frame.extend(batch);
    frame
}

/// A record batch of version 2.
fn batch(records: &[RawRecord]) -> Vec<u8> {
    let count = i32::try_from(records.len()).unwrap();
    let mut covered = Vec::new(); // by the checksum
    covered.extend(0_i16.to_be_bytes()); // attributes: no compression, the creator's time
    covered.extend((count - 1).to_be_bytes());
    covered.extend([0; 16]); // first and last time; the broker puts its own
    covered.extend([0xff; 14]); // no producer id, epoch or sequence
    covered.extend(count.to_be_bytes());
    for (number, record) in (0..).zip(records) {
        let encoded = encode(number, record);
        varint(&mut covered, encoded.len() as i64);
        covered.extend(encoded);
    }
    let mut batch = vec![0; 8]; // first offset; the broker puts its own
    batch.extend(i32::try_from(covered.len() + 9).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes()); // epoch of the leader
    batch.push(2);
    batch.extend(crc32c(&covered).to_be_bytes());
    batch.extend(covered);
    batch
}

fn encode(number: i64, record: &RawRecord) -> Vec<u8> {
    let mut out = vec![0]; // attributes
    varint(&mut out, 0); // time after the first
    varint(&mut out, number);
    bytes(&mut out, record.key.as_deref());
    bytes(&mut out, record.value.as_deref());
    varint(&mut out, record.headers.len() as i64);
    for (name, value) in &record.headers {
        bytes(&mut out, Some(name));
        bytes(&mut out, value.as_deref());
    }
    out
}

fn short_string(out: &mut Vec<u8>, text: &str) {
    out.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

/// A length of -1 stands for null.
fn bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

/// Zigzag, seven bits at a time.
fn varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Castagnoli's checksum, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
