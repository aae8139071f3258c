//! One small GET over loopback, for servers that say by HTTP whether they are ready. No redirects, no TLS, no
//! chunked bodies: HTTP/1.0 has none of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What a healthy server on the same machine needs, many times over.
const LIMIT: Duration = Duration::from_secs(3);

/// The body of a 200; any other answer is an error that quotes it.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT)).context("set the time limit")?;
    stream.set_write_timeout(Some(LIMIT)).context("set the time limit")?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("ask")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("understand the answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{path} answered {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}
