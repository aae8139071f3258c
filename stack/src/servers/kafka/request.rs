//! The one request that tells whether a broker serves: Metadata, encoded by hand so that this crate
//! needs no Kafka client. Reads the brokers of the answer and nothing after them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A healthy broker answers in milliseconds; a frozen one would hold the caller for ever.
const LIMIT: Duration = Duration::from_secs(2);

/// Metadata, in the newest version before the compact encoding: every 4.x broker knows it.
const API_KEY: i16 = 3;
const API_VERSION: i16 = 8;
const CORRELATION: i32 = 1;

/// The ids of the live brokers, as the broker on `port` sees them.
pub(super) fn brokers(port: u16) -> Result<Vec<i32>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT)).context("limit the wait for an answer")?;
    stream.write_all(&request()).context("ask for metadata")?;

    let mut length = [0; 4];
    stream.read_exact(&mut length).context("read the length of the metadata")?;
    let length = usize::try_from(i32::from_be_bytes(length)).context("negative length")?;
    if length > 1 << 20 {
        bail!("{address} does not speak Kafka: an answer of {length} bytes");
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).context("read the metadata")?;
    parse(&answer)
}

fn request() -> Vec<u8> {
    let client = b"order-stack";
    let mut body = Vec::new();
    body.extend(API_KEY.to_be_bytes());
    body.extend(API_VERSION.to_be_bytes());
    body.extend(CORRELATION.to_be_bytes());
    body.extend((client.len() as i16).to_be_bytes());
    body.extend(client);
    body.extend(0_i32.to_be_bytes()); // an empty list of topics: the brokers are enough
    body.extend([0, 0, 0]); // create no topics, report no authorisations
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn parse(answer: &[u8]) -> Result<Vec<i32>> {
    let mut rest = Reader(answer);
    let correlation = rest.int32()?;
    if correlation != CORRELATION {
        bail!("the answer to another request: {correlation}");
    }
    rest.int32()?; // throttle time
    let count = rest.int32()?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(rest.int32()?);
        rest.string()?; // host
        rest.int32()?; // port
        rest.string()?; // rack
    }
    Ok(ids)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (head, tail) = self.0.split_at_checked(count).context("the answer ends early")?;
        self.0 = tail;
        Ok(head)
    }

    fn int32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().context("four bytes")?))
    }

    /// A negative length stands for null.
    fn string(&mut self) -> Result<()> {
        let length = i16::from_be_bytes(self.take(2)?.try_into().context("two bytes")?);
        self.take(usize::try_from(length).unwrap_or(0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Vec<u8> {
        let mut answer = Vec::new();
        answer.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        for id in [1_i32, 3] {
            answer.extend(id.to_be_bytes());
            answer.extend([0, 1, b'h', 0, 0, 0x23, 0x84, 0xff, 0xff]);
        }
        answer
    }

    #[test]
    fn brokers_are_read_past_hosts_and_absent_racks() {
        assert_eq!(parse(&answer()).unwrap(), [1, 3]);
    }

    #[test]
    fn an_answer_cut_anywhere_is_an_error_and_never_a_panic() {
        for cut in 0..answer().len() {
            assert!(parse(&answer()[..cut]).is_err());
        }
    }
}
