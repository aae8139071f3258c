//! What is printed: each board, each number compared, what is wrong, and the verdict as the last line.

use std::fmt::Write as _;

use super::comparison::Compared;
use super::walk::Walked;

/// What came of everything.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) walked: Vec<Walked>,
    pub(super) compared: Vec<Compared>,
}

impl Proven {
    pub(super) fn is_good(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        let wrong: usize = self.walked.iter().map(|board| board.wrong.len()).sum();
        wrong + self.compared.iter().filter(|one| !one.agrees()).count()
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let line = |text: &mut String, line: String| {
            writeln!(text, "{line}").expect("writing to a string never fails");
        };
        line(&mut text, format!("{:<20} {:>7} {:>8} {:>7}", "board", "panels", "queries", "asked"));
        for board in &self.walked {
            let [panels, queries, asked] = [board.panels, board.queries, board.asked];
            line(&mut text, format!("{:<20} {panels:>7} {queries:>8} {asked:>7}", board.uid));
        }
        line(&mut text, format!("\n{:<100} {:>12} {:>12}", "compared", "known", "shown"));
        for one in &self.compared {
            let shown = one.shown.map_or("-".to_owned(), |shown| format!("{shown:.2}"));
            line(&mut text, format!("{:<100} {:>12.2} {shown:>12}", one.what(), one.known.value));
        }
        line(&mut text, String::new());
        for wrong in self.walked.iter().flat_map(|board| &board.wrong) {
            line(&mut text, format!("FAILED: {wrong}"));
        }
        for one in self.compared.iter().filter(|one| !one.agrees()) {
            let shown = one.shown.map_or("nothing".to_owned(), |shown| format!("{shown:.2}"));
            line(
                &mut text,
                format!("FAILED: {} shows {shown}; it was {:.2}", one.what(), one.known.value),
            );
        }
        let sum = |of: fn(&Walked) -> usize| self.walked.iter().map(of).sum::<usize>();
        let verdict = if self.is_good() { "proven" } else { "NOT proven" };
        line(
            &mut text,
            format!(
                "{verdict}: boards={} panels={} queries={} asked={} compared={} failed={}",
                self.walked.len(),
                sum(|board| board.panels),
                sum(|board| board.queries),
                sum(|board| board.asked),
                self.compared.len(),
                self.failed()
            ),
        );
        text
    }
}
