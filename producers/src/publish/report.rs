//! What a run tells people: progress and bad lines on stderr, one summary on stdout.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::PublishArgs;
use super::source::{Chunk, Source};

/// How often a line about progress is written where no bar can be drawn.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// What a run did.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) published: u64,
    pub(super) rejected: u64,
    pub(super) complete: bool,
    pub(super) seconds: f64,
    pub(super) run_id: String,
}

/// Keeps count and tells.
pub(super) struct Report {
    published: u64,
    rejected: u64,
    run_id: String,
    started: Instant,
    last_line: Instant,
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    errors: Option<File>,
}

impl Report {
    pub(super) fn new(args: &PublishArgs, source: &Source) -> anyhow::Result<Self> {
        let errors = match &args.errors {
            None => None,
            Some(path) => {
                let mut open = OpenOptions::new();
                // What an earlier part of the run found stays.
                open.create(true).write(true).append(args.resume).truncate(!args.resume);
                Some(open.open(path).with_context(|| format!("opening {}", path.display()))?)
            }
        };
        if source.from.lines > 0 {
            say(&format!("going on behind line {}", source.from.lines));
        }
        let bar = if stderr().is_terminal() { bar(source) } else { ProgressBar::hidden() };
        Ok(Self {
            published: 0,
            rejected: 0,
            run_id: source.run_id.clone(),
            started: Instant::now(),
            last_line: Instant::now(),
            bar,
            errors,
        })
    }

    /// A chunk is acknowledged.
    pub(super) fn settled(&mut self, chunk: &Chunk) -> anyhow::Result<()> {
        self.published += chunk.events.len() as u64;
        self.rejected += chunk.bad.len() as u64;
        for bad in &chunk.bad {
            match &mut self.errors {
                Some(file) => {
                    let mut line =
                        serde_json::to_vec(bad).context("writing the report of errors")?;
                    line.push(b'\n');
                    file.write_all(&line).context("writing the report of errors")?;
                }
                None => {
                    let line = format!("line {}: {}: {}", bad.line, bad.code, bad.detail);
                    self.bar.suspend(|| say(&line));
                }
            }
        }
        self.bar.set_position(chunk.end.bytes);
        self.bar.set_message(format!("{} published, {} rejected", self.published, self.rejected));
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_PERIOD {
            self.last_line = Instant::now();
            let per_second = self.published as f64 / self.started.elapsed().as_secs_f64();
            say(&format!(
                "published {}, rejected {}, {per_second:.0}/s",
                self.published, self.rejected
            ));
        }
        Ok(())
    }

    pub(super) fn finish(self, stopped: Option<&str>) -> Summary {
        self.bar.finish_and_clear();
        Summary {
            published: self.published,
            rejected: self.rejected,
            complete: stopped.is_none(),
            seconds: (self.started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            run_id: self.run_id,
        }
    }
}

impl Summary {
    pub(super) fn print(&self, json: bool) {
        let text = if json {
            serde_json::to_string(self).unwrap_or_default()
        } else {
            let Self { published, rejected, seconds, run_id, .. } = self;
            format!("published={published} rejected={rejected} seconds={seconds} run_id={run_id}")
        };
        // A reader that closed its end has what it wanted.
        drop(writeln!(stdout(), "{text}"));
    }
}

/// Writes a line for people.
pub(super) fn say(line: &str) {
    // Nowhere is left to complain about stderr.
    drop(writeln!(stderr(), "{line}"));
}

fn bar(source: &Source) -> ProgressBar {
    let (bar, template) = match source.bytes {
        Some(bytes) => {
            (ProgressBar::new(bytes), "{bar:32} {percent:>3}% {msg}, {bytes_per_sec}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {msg}, {elapsed}"),
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_position(source.from.bytes)
}
