//! Reads a file line by line, on a thread of its own, and makes of every line an event or a complaint.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::thread;

use anyhow::Context;
use schemas::{Event, OrderId, Timestamp};
use serde::Serialize;
use telemetry::Tracer;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::PublishArgs;
use super::checkpoint::{Checkpoint, Head, Position};
use crate::api::problem::Problem;
use crate::events::Encoded;
use crate::request::parse_line;

/// Most lines in a chunk.
pub(super) const LARGEST_CHUNK: usize = 500;
/// Longest line that is read; the same as over HTTP.
const LONGEST_LINE: usize = 64 * 1024;
/// Chunks read ahead.
const READ_AHEAD: usize = 4;
/// Whose ids these are: apart from every key a client can choose over HTTP.
const LINES: &str = "default|publish";

/// Where orders are read from.
pub(super) struct Source {
    /// None for standard input.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) run_id: String,
    /// Size of the file, when there is one.
    pub(super) bytes: Option<u64>,
    pub(super) from: Position,
    input: BufReader<Box<dyn Read + Send>>,
}

/// Lines that follow each other.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) events: Vec<Encoded>,
    pub(super) bad: Vec<BadLine>,
    /// Behind its last line.
    pub(super) end: Position,
}

/// A line that is no order.
#[derive(Debug, Serialize)]
pub(super) struct BadLine {
    pub(super) line: u64,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl Chunk {
    pub(super) fn lines(&self) -> usize {
        self.events.len() + self.bad.len()
    }
}

impl Source {
    /// Opens what `args` name, at the place an earlier run got to if they say so.
    pub(super) fn open(args: &PublishArgs) -> anyhow::Result<Self> {
        if args.file.as_os_str() == "-" {
            let run_id = args.run_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
            let input = BufReader::new(Box::new(io::stdin()) as Box<dyn Read + Send>);
            return Ok(Self {
                checkpoint: None,
                run_id,
                bytes: None,
                from: Position::default(),
                input,
            });
        }
        let file = &args.file;
        let found = if args.resume { Checkpoint::load(file)? } else { None };
        let checkpoint = match found {
            Some(checkpoint) => checkpoint,
            None => {
                let head = Head::of(file)?;
                let run_id = args.run_id.clone().unwrap_or_else(|| head.sha256().to_owned());
                Checkpoint::start(file, run_id, head)
            }
        };
        let from = checkpoint.position();
        let mut input = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        input
            .seek(SeekFrom::Start(from.bytes))
            .with_context(|| format!("reading {}", file.display()))?;
        let bytes = input.metadata().ok().map(|metadata| metadata.len());
        let run_id = checkpoint.run_id().to_owned();
        let input = BufReader::with_capacity(256 * 1024, Box::new(input) as Box<dyn Read + Send>);
        Ok(Self { checkpoint: Some(checkpoint), run_id, bytes, from, input })
    }

    /// Starts to read; every order opens a trace. The thread ends with the input, or when nobody takes its chunks any more.
    pub(super) fn start(
        mut self,
        chunk_lines: usize,
        tracer: Tracer,
    ) -> mpsc::Receiver<anyhow::Result<Chunk>> {
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        // Not a task: a read from a terminal cannot be cancelled, and must not hold up the end of the process.
        thread::spawn(move || {
            let mut at = self.from;
            loop {
                let chunk = self.chunk(at, chunk_lines, &tracer).context("reading orders");
                match &chunk {
                    Ok(None) => return,
                    Ok(Some(chunk)) => at = chunk.end,
                    Err(_) => {}
                }
                let failed = chunk.is_err();
                let Some(chunk) = chunk.transpose() else { return };
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        chunks
    }

    fn chunk(
        &mut self,
        mut at: Position,
        most: usize,
        tracer: &Tracer,
    ) -> io::Result<Option<Chunk>> {
        let (mut events, mut bad) = (Vec::with_capacity(most), Vec::new());
        let mut line = Vec::with_capacity(512);
        while events.len() + bad.len() < most {
            let read = read_line(&mut self.input, &mut line)?;
            if read == 0 {
                break;
            }
            at = Position { lines: at.lines + 1, bytes: at.bytes + read };
            if !line.trim_ascii().is_empty() {
                match event(&line, at.lines, &self.run_id, tracer) {
                    Ok(event) => events.push(event),
                    Err(problem) => bad.push(BadLine {
                        line: at.lines,
                        code: problem.code().name(),
                        detail: detail(problem),
                    }),
                }
            }
            // Someone may be typing, or a pipe pausing: what is complete goes out.
            if self.bytes.is_none() && self.input.buffer().is_empty() {
                break;
            }
        }
        let moved = !events.is_empty() || !bad.is_empty();
        Ok(moved.then_some(Chunk { events, bad, end: at }))
    }
}

fn event(line: &[u8], number: u64, run_id: &str, tracer: &Tracer) -> Result<Encoded, Problem> {
    if line.len() > LONGEST_LINE {
        return Err(Problem::BodyTooLarge(LONGEST_LINE));
    }
    let line = parse_line(line)?;
    let order_id = match line.key.transpose()? {
        Some(key) => key.order_id(),
        // The content is part of the name: two files that begin alike must not claim each other's orders.
        None => {
            let name = format!("{run_id}|{number}|{:x}", line.order.fingerprint());
            OrderId::from_idempotency_key(LINES, &name)
        }
    };
    let now = Timestamp::now();
    let placed = Event::OrderPlaced(line.order.placed(order_id, now));
    Ok(Encoded::opening(&placed, now, &tracer.enter(None)))
}

fn detail(problem: Problem) -> String {
    let details = problem.details();
    match details.errors.as_deref() {
        Some(errors) => {
            let errors = errors.iter().map(|error| format!("{} {}", error.pointer, error.message));
            errors.collect::<Vec<_>>().join("; ")
        }
        None => details.detail,
    }
}

/// Reads a line without its end into `line`, keeping no more of it than proves that it is too long. Answers with
/// the bytes consumed; 0 at the end.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut consumed = 0;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = available.iter().position(|&byte| byte == b'\n');
        let text = &available[..end.unwrap_or(available.len())];
        let room = (LONGEST_LINE + 1).saturating_sub(line.len());
        line.extend_from_slice(&text[..text.len().min(room)]);
        let used = text.len() + usize::from(end.is_some());
        let last = end.is_some() || available.is_empty();
        input.consume(used);
        consumed += used as u64;
        if last {
            return Ok(consumed);
        }
    }
}
