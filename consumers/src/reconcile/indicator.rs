//! Tells the person at the terminal what is being waited for.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A line that is redrawn on a terminal, and written now and then elsewhere. Always standard error.
#[derive(Clone)]
pub(super) struct Indicator {
    spinner: Option<ProgressBar>,
    last_line: Arc<Mutex<Option<Instant>>>,
}

impl Indicator {
    pub(super) fn on_stderr() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
            spinner.enable_steady_tick(Duration::from_millis(200));
            spinner
        });
        Self { spinner, last_line: Arc::default() }
    }

    /// Shows `message`, or leaves it out when one was written only just now.
    pub(super) fn say(&self, message: &str) {
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

    /// Leaves the terminal as it was.
    pub(super) fn finish(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
