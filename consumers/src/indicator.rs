//! Keeps the person at the terminal informed, on standard error: what is being waited for, and what to know about.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A line that is redrawn on a terminal, and written now and then elsewhere.
#[derive(Clone)]
pub(crate) struct Indicator {
    spinner: Option<ProgressBar>,
    last_line: Arc<Mutex<Option<Instant>>>,
}

impl Indicator {
    pub(crate) fn on_stderr() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
            spinner.enable_steady_tick(Duration::from_millis(200));
            spinner
        });
        Self { spinner, last_line: Arc::default() }
    }

    /// Where things are: shows `message`, or leaves it out when one was written only just now.
    pub(crate) fn progress(&self, message: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(message.to_owned());
            return;
        }
        let mut last_line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            *last_line = Some(Instant::now());
            eprintln!("{message}");
        }
    }

    /// Something to know about.
    pub(crate) fn say(&self, message: &str) {
        self.aside(|| eprintln!("{message}"));
    }

    /// Writes something else without disturbing the line that is redrawn.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
