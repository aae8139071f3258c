//! Notices when most of what a stage reads is rejected: that is probably our bug, and filling the dead letters with
//! good orders would make it worse.

use std::collections::VecDeque;
use std::sync::Mutex;

/// Rejected records among the last ones read.
pub(crate) struct RejectWindow {
    size: usize,
    batches: Mutex<VecDeque<(usize, usize)>>,
}

impl RejectWindow {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, batches: Mutex::default() }
    }

    /// Takes note of a batch before it is committed. `true`: more than half of a full window would be rejected.
    pub(crate) fn is_too_much(&self, records: usize, rejected: usize) -> bool {
        let mut batches = self.batches.lock().expect("no code panics while it holds this lock");
        batches.push_back((records, rejected));
        let mut total: usize = batches.iter().map(|(records, _)| records).sum();
        while let Some((oldest, _)) = batches.front() {
            if total - oldest < self.size {
                break;
            }
            total -= oldest;
            batches.pop_front();
        }
        let rejected: usize = batches.iter().map(|(_, rejected)| rejected).sum();
        total >= self.size && rejected * 2 > total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bad_records_are_no_reason_to_stop() {
        let window = RejectWindow::new(100);

        assert!(!window.is_too_much(50, 50), "the window is not full yet");
        assert!(!window.is_too_much(60, 0));
    }

    #[test]
    fn a_window_full_of_rejections_is() {
        let window = RejectWindow::new(100);

        assert!(!window.is_too_much(1_000, 0));
        assert!(window.is_too_much(1_000, 900), "the good ones before have left the window");
    }
}
