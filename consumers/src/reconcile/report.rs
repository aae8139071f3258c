//! What the audit found, as text for people and JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::rules::Kind;
use super::supervision::Counts;

/// The result of an audit.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) reconciled: bool,
    /// Distinct orders in the topic `orders`.
    pub(super) placed: u64,
    /// Of these, the ones that ended, in every place that should know.
    #[serde(rename = "final")]
    pub(super) final_orders: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) phantom: u64,
    pub(super) mismatched: u64,
    /// Placed and not final, and nothing explains it.
    pub(super) lost_orders: u64,
    /// On their way, or moving while they were looked at.
    pub(super) pending: u64,
    /// First heard of while the audit was reading.
    pub(super) arrived: u64,
    /// Held up by a record in `dead_letters`.
    pub(super) dead_lettered: u64,
    pub(super) dead_lettered_ids: Vec<String>,
    /// Cancelled, but never placed.
    pub(super) cancelled_unplaced: u64,
    /// Final orders by status.
    pub(super) outcomes: BTreeMap<&'static str, u64>,
    pub(super) events: Vec<EventRow>,
    pub(super) rows: Vec<StateRow>,
    /// Workflows, when they were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workflows: Option<Counts>,
    /// Captured and not refunded.
    pub(super) captured_cents: i64,
    pub(super) records: u64,
    pub(super) unreadable: u64,
    pub(super) dead_letter_records: u64,
    pub(super) dead_letters: BTreeMap<String, i64>,
    /// Everything was applied and told.
    pub(super) quiet: bool,
    /// Only orders placed since some time were looked at.
    pub(super) windowed: bool,
    /// Partitions whose first records are gone.
    pub(super) retention: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

/// An event type in the topics and in the timeline.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EventRow {
    pub(super) event: &'static str,
    /// Distinct orders that have it.
    pub(super) orders: u64,
    /// Records that told it again, under the same id.
    pub(super) repeats: u64,
    /// Lines in `order_events`.
    pub(super) timeline: u64,
}

/// Rows of a table in a state.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StateRow {
    pub(super) table: &'static str,
    pub(super) state: &'static str,
    pub(super) rows: u64,
}

/// A rule and who breaks it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) what: &'static str,
    pub(super) count: u64,
    /// The first of them.
    pub(super) ids: Vec<String>,
}

impl Finding {
    pub(super) fn new(kind: Kind, what: &'static str) -> Self {
        Self { kind, what, count: 0, ids: Vec::new() }
    }
}

impl Report {
    pub(super) fn count(&mut self, kind: Kind, more: u64) {
        match kind {
            Kind::Lost => self.lost += more,
            Kind::Duplicated => self.duplicated += more,
            Kind::Phantom => self.phantom += more,
            Kind::Mismatched => self.mismatched += more,
        }
    }

    /// Whether everything that was placed came to its end, once, and every place tells the same.
    pub(super) fn is_reconciled(&self) -> bool {
        self.placed == self.final_orders && self.is_settled() && self.is_sound()
    }

    /// Whether nothing is wrong, so far as it can be told while orders are on their way.
    pub(super) fn is_sound(&self) -> bool {
        self.lost + self.duplicated + self.phantom + self.mismatched == 0
    }

    /// Whether nothing is on its way, so that another look would see the same.
    pub(super) fn is_settled(&self) -> bool {
        self.pending == 0 && self.arrived == 0
    }

    /// The report for people. Its last line is the verdict.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string never fails");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{:<32} {:>10} {:>10} {:>10}", "event", "orders", "repeats", "timeline")?;
        for row in &self.events {
            writeln!(
                text,
                "{:<32} {:>10} {:>10} {:>10}",
                row.event, row.orders, row.repeats, row.timeline
            )?;
        }
        writeln!(text, "\n{:<21} {:<10} {:>10}", "table", "state", "rows")?;
        for row in &self.rows {
            writeln!(text, "{:<21} {:<10} {:>10}", row.table, row.state, row.rows)?;
        }
        for (state, letters) in &self.dead_letters {
            writeln!(text, "{:<21} {:<10} {:>10}", "dead_letters", state, letters)?;
        }
        writeln!(text, "\n{:<32} {:>10}", "orders placed", self.placed)?;
        for (status, orders) in &self.outcomes {
            writeln!(text, "  {status:<30} {orders:>10}")?;
        }
        for (name, orders) in [
            ("on their way", self.pending),
            ("held up by a dead letter", self.dead_lettered),
            ("lost", self.lost_orders),
        ] {
            if orders > 0 {
                writeln!(text, "  {name:<30} {orders:>10}")?;
            }
        }
        if !self.dead_lettered_ids.is_empty() {
            write_ids(text, &self.dead_lettered_ids, self.dead_lettered)?;
        }
        self.write_remarks(text)?;
        for finding in &self.findings {
            writeln!(text, "\n{}: {} ({})", finding.kind.as_str(), finding.what, finding.count)?;
            write_ids(text, &finding.ids, finding.count)?;
        }
        writeln!(text)?;
        if let Some(Counts { closed, open }) = self.workflows {
            writeln!(text, "workflows closed={closed} open={open}")?;
        }
        writeln!(text, "{}", self.verdict())
    }

    fn write_remarks(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n{} records read, {} of them unreadable", self.records, self.unreadable)?;
        if self.cancelled_unplaced > 0 {
            writeln!(
                text,
                "{} cancellations of orders that nobody placed",
                self.cancelled_unplaced
            )?;
        }
        if self.arrived > 0 {
            writeln!(text, "{} orders arrived while this was read", self.arrived)?;
        }
        if self.windowed {
            writeln!(text, "only orders placed in the given time were looked at")?;
        }
        if !self.quiet {
            writeln!(
                text,
                "the pipeline is at work: what is missing is counted as pending, not as lost"
            )?;
        }
        if !self.retention.is_empty() {
            writeln!(
                text,
                "records are gone by retention, and what they told is missing from this report:"
            )?;
            write_ids(text, &self.retention, self.retention.len() as u64)?;
        }
        Ok(())
    }

    /// The verdict in one line.
    pub(super) fn verdict(&self) -> String {
        let Self {
            placed,
            final_orders,
            lost,
            duplicated,
            phantom,
            mismatched,
            pending,
            dead_lettered,
            ..
        } = self;
        let counts =
            format!("placed={placed} final={final_orders} lost={lost} duplicated={duplicated}");
        if self.is_reconciled() {
            format!("reconciled: {counts}")
        } else {
            format!(
                "NOT reconciled: {counts} phantom={phantom} mismatched={mismatched} pending={pending} \
                 dead_lettered={dead_lettered}"
            )
        }
    }
}

fn write_ids(text: &mut String, ids: &[String], count: u64) -> std::fmt::Result {
    for id in ids {
        writeln!(text, "  {id}")?;
    }
    let left_out = count.saturating_sub(ids.len() as u64);
    if left_out > 0 { writeln!(text, "  and {left_out} more") } else { Ok(()) }
}
