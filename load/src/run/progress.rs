//! A run as it goes: bars on a terminal, a line every few seconds elsewhere. Writes to standard error alone.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(2);

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) offered: u64,
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) completed: u64,
    pub(super) lag_records: f64,
    pub(super) lag_seconds: f64,
}

/// Shows where a run stands.
pub(super) struct Progress {
    total: u64,
    /// Offered, accepted, completed, and a line for the lag.
    bars: Option<[ProgressBar; 4]>,
    last_line: Instant,
    shown: Standing,
}

impl Progress {
    pub(super) fn of(total: u64) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            ["offered", "accepted", "completed", "lag"].map(|name| {
                let bar = all.add(ProgressBar::new(total));
                let template = if name == "lag" {
                    "{prefix:<9} {msg}"
                } else {
                    "{prefix:<9} {wide_bar} {pos:>8}/{len}"
                };
                let style = ProgressStyle::with_template(template);
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(name);
                bar
            })
        });
        Self { total, bars, last_line: Instant::now(), shown: Standing::default() }
    }

    pub(super) fn show(&mut self, standing: Standing) {
        self.shown = standing;
        let Standing { offered, accepted, completed, .. } = standing;
        match &self.bars {
            Some([offered_bar, accepted_bar, completed_bar, lag]) => {
                offered_bar.set_position(offered);
                accepted_bar.set_position(accepted);
                completed_bar.set_position(completed);
                lag.set_message(lag_of(&standing));
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.line();
            }
            None => {}
        }
    }

    pub(super) fn finish(&self) {
        match &self.bars {
            Some(bars) => bars.iter().for_each(ProgressBar::abandon),
            None => self.line(),
        }
    }

    fn line(&self) {
        let Standing { offered, accepted, completed, .. } = self.shown;
        eprintln!(
            "offered {offered} of {}, accepted {accepted}, completed {completed}, lag {}",
            self.total,
            lag_of(&self.shown)
        );
    }
}

fn lag_of(standing: &Standing) -> String {
    let Standing { rejected, lag_records, lag_seconds, .. } = standing;
    let rejected = if *rejected > 0 { format!(", {rejected} not accepted") } else { String::new() };
    format!("{lag_records:.0} records, {lag_seconds:.1} s{rejected}")
}
