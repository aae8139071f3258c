//! Keeps the person at the terminal informed, on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A line that is redrawn on a terminal, and written now and then elsewhere.
pub(super) struct Teller {
    spinner: Option<ProgressBar>,
    last_line: Instant,
}

impl Teller {
    pub(super) fn on_stderr() -> Self {
        let spinner = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner()));
        Self { spinner, last_line: Instant::now() }
    }

    /// Where things are.
    pub(super) fn progress(&mut self, message: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(message.to_owned());
            spinner.tick();
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{message}");
        }
    }

    /// Something to know about.
    pub(super) fn say(&self, message: &str) {
        self.aside(|| eprintln!("{message}"));
    }

    /// Writes something else without disturbing the line that is redrawn.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
