//! Orders accepted and orders final, as they rise: two bars on a terminal, a line now and then elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(1);

/// Two counts on their way to the same number.
pub(super) struct Counting {
    count: u64,
    accepted: Cell<u64>,
    ended: Cell<u64>,
    bars: Option<[ProgressBar; 2]>,
    last_line: Cell<Instant>,
}

impl Counting {
    pub(super) fn of(count: u64) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let both = MultiProgress::new();
            ["accepted", "final"].map(|name| {
                let bar = both.add(ProgressBar::new(count));
                let style = ProgressStyle::with_template(
                    "{prefix:<9} {wide_bar} {pos}/{len} {per_sec:>12}",
                );
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(name);
                bar
            })
        });
        Self {
            count,
            accepted: Cell::new(0),
            ended: Cell::new(0),
            bars,
            last_line: Cell::new(Instant::now()),
        }
    }

    pub(super) fn accepted(&self) {
        self.accepted.set(self.accepted.get() + 1);
        self.show();
    }

    pub(super) fn are_final(&self, ended: u64) {
        self.ended.set(ended.min(self.count));
        self.show();
    }

    pub(super) fn finish(&self) {
        match &self.bars {
            Some(bars) => bars.iter().for_each(ProgressBar::abandon),
            None => self.line(),
        }
    }

    fn show(&self) {
        match &self.bars {
            Some([accepted, ended]) => {
                accepted.set_position(self.accepted.get());
                ended.set_position(self.ended.get());
            }
            None if self.last_line.get().elapsed() >= LINE_EVERY => {
                self.last_line.set(Instant::now());
                self.line();
            }
            None => {}
        }
    }

    fn line(&self) {
        super::say(&format!(
            "accepted {} of {}, final {}",
            self.accepted.get(),
            self.count,
            self.ended.get()
        ));
    }
}
