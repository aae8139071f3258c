//! The other ends: a server that keeps every request, and one that keeps every mail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What has arrived so far.
#[derive(Clone, Debug)]
pub(crate) struct Sink<T> {
    pub(crate) port: u16,
    arrived: Arc<Mutex<Vec<T>>>,
}

impl<T: Clone + Send + 'static> Sink<T> {
    fn listen(receive: impl Fn(TcpStream) -> std::io::Result<T> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = Self { port, arrived: Arc::default() };
        let (arrived, receive) = (sink.arrived.clone(), Arc::new(receive));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (arrived, receive) = (arrived.clone(), receive.clone());
                thread::spawn(move || {
                    // A client that leaves early has sent nothing to keep.
                    if let Ok(message) = receive(stream) {
                        arrived.lock().unwrap().push(message);
                    }
                });
            }
        });
        sink
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.arrived.lock().unwrap().clone()
    }
}

pub(crate) fn requests() -> Sink<Request> {
    Sink::listen(|stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        // 202 is what the pager insists on; the others take it for what it is.
        write!(&stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        Ok(Request { path, head, body: String::from_utf8_lossy(&body).into_owned() })
    })
}

pub(crate) fn mails() -> Sink<String> {
    Sink::listen(|stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        let mut mail = String::new();
        stream.write_all(b"220 sink\r\n")?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let answer: &[u8] = match line.get(..4).unwrap_or_default() {
                "EHLO" | "HELO" => b"250 sink\r\n",
                "DATA" => {
                    stream.write_all(b"354 go on\r\n")?;
                    while !mail.ends_with("\r\n.\r\n") {
                        reader.read_line(&mut mail)?;
                    }
                    b"250 kept\r\n"
                }
                "QUIT" | "" => {
                    stream.write_all(b"221 bye\r\n")?;
                    return Ok(mail);
                }
                _ => b"250 ok\r\n",
            };
            stream.write_all(answer)?;
        }
    })
}
