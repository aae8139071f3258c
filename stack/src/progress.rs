//! What a person sees while things take time: spinners on a terminal, one plain line per step
//! elsewhere, nothing for a library caller. Only standard error; data never passes here.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

#[derive(Clone, Debug)]
pub struct Progress(Sink);

#[derive(Clone, Debug)]
enum Sink {
    Silent,
    Lines,
    Bars(MultiProgress),
}

impl Progress {
    pub fn silent() -> Self {
        Self(Sink::Silent)
    }

    /// Bars when standard error is a terminal, lines when it is a file or a pipe.
    pub fn on_stderr() -> Self {
        match std::io::stderr().is_terminal() {
            true => Self(Sink::Bars(MultiProgress::new())),
            false => Self(Sink::Lines),
        }
    }

    pub(crate) fn say(&self, line: &str) {
        match &self.0 {
            Sink::Silent => {}
            Sink::Lines => eprintln!("{line}"),
            // Fails only when the terminal has gone, which leaves nobody to tell.
            Sink::Bars(bars) => drop(bars.println(line)),
        }
    }

    /// `who` is padded so that parallel steps line up.
    pub(crate) fn step(&self, who: &str, doing: &str) -> Step {
        let bar = match &self.0 {
            Sink::Bars(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(
                    ProgressStyle::with_template("{spinner} {prefix:<17} {msg} {elapsed:.dim}")
                        .unwrap_or_else(|_| ProgressStyle::default_spinner()),
                );
                bar.set_prefix(who.to_owned());
                bar.enable_steady_tick(Duration::from_millis(100));
                Some(bar)
            }
            _ => None,
        };
        let step = Step { who: who.to_owned(), bar, sink: self.clone(), started: Instant::now() };
        step.now(doing);
        step
    }
}

pub(crate) struct Step {
    who: String,
    bar: Option<ProgressBar>,
    sink: Progress,
    started: Instant,
}

impl Step {
    pub(crate) fn now(&self, doing: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(doing.to_owned()),
            None => self.sink.say(&format!("{:<17} {doing}", self.who)),
        }
    }

    /// A number that changes often: shown on a bar only, so that a log does not fill up.
    pub(crate) fn tick(&self, doing: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(doing.to_owned());
        }
    }

    pub(crate) fn done(self, what: &str) {
        let line =
            format!("{:<17} {what} ({:.1} s)", self.who, self.started.elapsed().as_secs_f64());
        self.sink.say(&line);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
