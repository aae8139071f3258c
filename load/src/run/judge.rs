//! The verdict: what was seen against the budget. Pure: the same numbers give the same verdict.
//!
//! Passing needs three things: the budget holds, nothing was lost or doubled by any witness, and the witnesses agree.

use serde::Serialize;

use super::monitoring::Fired;
use super::observed::Observed;
use super::profile::Budget;

/// The first and the last request of a run may fall outside it.
const SENT_SLACK: f64 = 2.0;

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) pass: bool,
    /// What was asked of numbers, in the order of the report.
    pub(crate) checks: Vec<Check>,
    /// Everything that speaks against the run, in sentences.
    pub(crate) reasons: Vec<String>,
}

/// A number and its limit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    /// Absent when there was nothing to measure.
    pub(crate) found: Option<f64>,
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
    pub(crate) holds: bool,
}

impl Verdict {
    /// One more reason against the run.
    pub(crate) fn fail(&mut self, reason: String) {
        self.reasons.push(reason);
        self.pass = false;
    }
}

/// Judges.
pub(crate) fn judge(seen: &Observed, budget: &Budget) -> Verdict {
    let checks = checks(seen, budget);
    let mut reasons = Vec::new();
    for check in checks.iter().filter(|check| !check.holds) {
        reasons.push(match check.found {
            Some(found) => format!(
                "{} is {found:.3}{}, above the budget of {}{}",
                check.what, check.unit, check.limit, check.unit
            ),
            None => format!("{} could not be measured", check.what),
        });
    }
    orders(seen, budget, &mut reasons);
    witnesses(seen, budget, &mut reasons);
    Verdict { pass: reasons.is_empty(), checks, reasons }
}

fn checks(seen: &Observed, budget: &Budget) -> Vec<Check> {
    let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
    let turned_away = seen.rejected_orders() + seen.unknown_orders();
    let mut checks = vec![
        (
            "share of orders not accepted",
            share(turned_away, seen.orders_sent),
            budget.rejected_ratio,
            "",
        ),
        (
            "client latency p99",
            seen.client.map(|client| client.p99),
            budget.client_p99_seconds,
            " s",
        ),
        (
            "accepted to final p99",
            seen.to_final.map(|times| times.p99),
            budget.final_p99_seconds,
            " s",
        ),
        ("share of orders late", share(seen.late, seen.accepted), budget.late_ratio, ""),
        ("time to drain", Some(seen.drain.seconds), budget.drain_seconds, " s"),
    ];
    if let Some(limit) = budget.accepted_p99_seconds {
        let p99 = seen.answered.map(|answered| answered.p99);
        checks.push(("sent to accepted p99", p99, limit, " s"));
    }
    if let Some(limit) = budget.lag_seconds {
        let peak = seen.lag.values().map(|lag| lag.seconds).reduce(f64::max);
        checks.push(("peak lag of a stage", peak, limit, " s"));
    }
    if let Some(limit) = budget.memory_mib {
        let ours =
            seen.usage.iter().filter(|(name, _)| !matches!(name.as_str(), "kafka" | "postgres"));
        let peak = ours.map(|(_, usage)| usage.peak_mib).reduce(f64::max);
        checks.push(("memory of a process", peak, limit, " MiB"));
    }
    let judged = checks.into_iter().map(|(what, found, limit, unit)| Check {
        what,
        found,
        limit,
        unit,
        holds: found.is_some_and(|found| found <= limit),
    });
    judged.collect()
}

/// What became of the orders.
fn orders(seen: &Observed, budget: &Budget, reasons: &mut Vec<String>) {
    if seen.accepted == 0 {
        reasons.push("no order was accepted".to_owned());
    }
    if seen.missing > 0 {
        reasons.push(format!(
            "lost: {} accepted orders are in no table, first {}",
            seen.missing,
            seen.missing_ids.join(", ")
        ));
    }
    if seen.audit.lost > 0 {
        reasons.push(format!("lost: the auditor misses {} facts", seen.audit.lost));
    }
    if seen.repeated > 0 {
        reasons
            .push(format!("duplicated: {} orders were accepted under an id twice", seen.repeated));
    }
    if seen.audit.duplicated > 0 {
        let times = seen.audit.duplicated;
        reasons.push(format!("duplicated: the auditor saw {times} things happen twice"));
    }
    if !seen.drain.ended {
        reasons.push(format!(
            "the drain did not end: after {:.0} s (patience {} s) {} accepted orders are not final",
            seen.drain.seconds,
            budget.drain_patience_seconds,
            seen.open + seen.missing
        ));
    } else if seen.open > 0 {
        reasons.push(format!("{} accepted orders are not final", seen.open));
    }
}

/// Whether those who counted agree.
fn witnesses(seen: &Observed, budget: &Budget, reasons: &mut Vec<String>) {
    let audit = &seen.audit;
    for (count, what) in [
        (audit.phantom, "things that nobody asked for"),
        (audit.mismatched, "things that two places tell differently"),
        (audit.dead_lettered, "orders held up by a dead letter"),
    ] {
        if count > 0 {
            reasons.push(format!("the auditor found {count} {what}"));
        }
    }
    if !audit.reconciled && seen.drain.ended && audit.lost + audit.duplicated == 0 {
        reasons
            .push(format!("the auditor does not reconcile; {} orders are pending", audit.pending));
    }
    if (seen.sent as f64) < seen.offered as f64 * budget.sent_ratio - SENT_SLACK {
        reasons.push(format!(
            "the client did not keep up: {} of {} requests were sent",
            seen.sent, seen.offered
        ));
    }
    for counter in &seen.counters {
        let (low, high) = (counter.at_least as f64, counter.at_most as f64);
        match counter.moved {
            None => reasons.push(format!("{} could not be read", counter.name)),
            Some(moved) if !(low..=high).contains(&moved) => reasons.push(format!(
                "{} moved by {moved}, but from outside {low} to {high} was seen",
                counter.name
            )),
            Some(_) => {}
        }
    }
}

/// Alerts that should have fired and did not, and the other way round.
pub(crate) fn judge_alerts(fired: &[Fired], budget: &Budget, verdict: &mut Verdict) {
    let is_expected = |fired: &&Fired| budget.alerts.contains(&fired.name);
    for Fired { name, severity } in fired.iter().filter(|fired| !is_expected(fired)) {
        verdict.fail(format!("the alert {name} ({severity}) fired"));
    }
    for name in &budget.alerts {
        if fired.iter().all(|fired| fired.name != *name) {
            verdict.fail(format!("the alert {name} should have fired and did not"));
        }
    }
}

/// The last line of the output.
pub(crate) fn last_line(seen: &Observed, pass: bool) -> String {
    format!(
        "verdict: {} offered={} accepted={} completed={} lost={} duplicated={}",
        if pass { "pass" } else { "fail" },
        seen.offered,
        seen.accepted,
        seen.completed_orders(),
        seen.lost(),
        seen.duplicated()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::observed::{Audited, Counter, Drain, Lag, Quantiles};

    fn budget() -> Budget {
        Budget {
            rejected_ratio: 0.01,
            sent_ratio: 0.99,
            accepted_p99_seconds: Some(0.4),
            client_p99_seconds: 0.5,
            final_p99_seconds: 1.0,
            late_after_seconds: 5.0,
            late_ratio: 0.01,
            drain_seconds: 5.0,
            drain_patience_seconds: 60,
            lag_seconds: Some(2.0),
            memory_mib: None,
            alerts: vec!["Expected".to_owned()],
        }
    }

    fn sound() -> Observed {
        let times = Quantiles { p50: 0.01, p95: 0.05, p99: 0.1, max: 0.2 };
        Observed {
            offered: 100,
            sent: 100,
            orders_sent: 100,
            accepted: 100,
            completed: [("shipped".to_owned(), 97), ("declined".to_owned(), 3)].into(),
            client: Some(times),
            answered: Some(times),
            to_final: Some(times),
            lag: [("payment".to_owned(), Lag { records: 20.0, seconds: 0.5 })].into(),
            drain: Drain { seconds: 0.4, ended: true },
            counters: vec![Counter {
                name: "orders_created_total".to_owned(),
                moved: Some(100.0),
                at_least: 100,
                at_most: 100,
            }],
            audit: Audited { reconciled: true, placed: 100, ..Audited::default() },
            ..Observed::default()
        }
    }

    /// Judges a sound run after `change`, and insists on exactly one reason, which contains `reason`.
    #[track_caller]
    fn fails(change: impl FnOnce(&mut Observed), reason: &str) -> Observed {
        let mut seen = sound();
        change(&mut seen);
        let verdict = judge(&seen, &budget());
        assert!(!verdict.pass, "{verdict:#?}");
        assert!(verdict.reasons.len() == 1 && verdict.reasons[0].contains(reason), "{verdict:#?}");
        seen
    }

    #[test]
    fn a_sound_run_within_its_budget_passes() {
        let seen = sound();
        let verdict = judge(&seen, &budget());

        assert!(verdict.pass, "{verdict:#?}");
        let line = "verdict: pass offered=100 accepted=100 completed=100 lost=0 duplicated=0";
        assert_eq!(last_line(&seen, verdict.pass), line);
    }

    #[test]
    fn accepted_orders_that_are_nowhere_are_lost_even_if_the_auditor_never_heard_of_them() {
        let seen = fails(
            |seen| {
                seen.missing = 2;
                seen.missing_ids = vec!["a".to_owned(), "b".to_owned()];
                seen.completed = [("shipped".to_owned(), 98)].into();
            },
            "lost: 2 accepted orders are in no table, first a, b",
        );
        assert!(last_line(&seen, false).ends_with("completed=98 lost=2 duplicated=0"));
    }

    #[test]
    fn what_the_auditor_misses_is_lost_and_what_it_saw_twice_is_duplicated() {
        let seen = fails(
            |seen| (seen.audit.reconciled, seen.audit.lost) = (false, 3),
            "lost: the auditor misses 3",
        );
        assert_eq!(seen.lost(), 3);
        let seen = fails(
            |seen| (seen.audit.reconciled, seen.audit.duplicated) = (false, 4),
            "duplicated: the auditor saw 4",
        );
        assert_eq!(seen.duplicated(), 4);
        fails(|seen| seen.repeated = 1, "duplicated: 1 orders were accepted under an id twice");
    }

    #[test]
    fn delayed_orders_break_the_budget() {
        let slow = Quantiles { p50: 1.0, p95: 2.0, p99: 3.0, max: 4.0 };
        fails(|seen| seen.to_final = Some(slow), "accepted to final p99 is 3.000 s");
        fails(|seen| seen.client = Some(slow), "client latency p99 is 3.000 s");
        fails(|seen| seen.answered = Some(slow), "sent to accepted p99 is 3.000 s");
        fails(|seen| seen.late = 2, "share of orders late is 0.020");
        fails(|seen| seen.drain.seconds = 6.0, "time to drain is 6.000 s");
        fails(
            |seen| seen.lag.get_mut("payment").unwrap().seconds = 2.5,
            "peak lag of a stage is 2.500 s",
        );
    }

    #[test]
    fn a_drain_that_never_ends_is_told_as_such_and_is_no_loss() {
        let mut seen = sound();
        seen.drain = Drain { seconds: 60.0, ended: false };
        seen.open = 40;
        seen.completed = [("shipped".to_owned(), 60)].into();
        (seen.audit.reconciled, seen.audit.pending) = (false, 40);

        let verdict = judge(&seen, &budget());

        let [drain, ended] = &verdict.reasons[..] else { panic!("{verdict:#?}") };
        assert!(drain.contains("time to drain is 60.000 s"), "{drain}");
        assert!(
            ended.contains("the drain did not end") && ended.contains("40 accepted"),
            "{ended}"
        );
        assert_eq!(seen.lost(), 0);
    }

    #[test]
    fn a_counter_that_tells_otherwise_is_a_finding() {
        let name = "orders_created_total moved by 99, but from outside 100 to 100 was seen";
        fails(|seen| seen.counters[0].moved = Some(99.0), name);
        fails(|seen| seen.counters[0].moved = None, "orders_created_total could not be read");
    }

    #[test]
    fn orders_turned_away_beyond_the_budget_and_a_client_that_fell_behind_fail() {
        let overloaded = || [("503 overloaded".to_owned(), 2)].into();
        fails(|seen| seen.rejected = overloaded(), "share of orders not accepted is 0.020");
        fails(|seen| seen.unknown = overloaded(), "share of orders not accepted is 0.020");
        fails(|seen| seen.sent = 90, "the client did not keep up: 90 of 100");
    }

    #[test]
    fn alerts_fire_when_they_should_and_only_then() {
        let fired = |names: &[&str]| {
            let mut verdict = judge(&sound(), &budget());
            let severity = "warning".to_owned();
            let fired = names.iter().map(|name| (*name).to_owned());
            let fired: Vec<_> =
                fired.map(|name| Fired { name, severity: severity.clone() }).collect();
            judge_alerts(&fired, &budget(), &mut verdict);
            verdict
        };

        assert!(fired(&["Expected"]).pass);
        assert_eq!(fired(&[]).reasons, ["the alert Expected should have fired and did not"]);
        assert_eq!(fired(&["Expected", "Other"]).reasons, ["the alert Other (warning) fired"]);
        assert!(!fired(&[]).pass && !fired(&["Expected", "Other"]).pass);
    }

    #[test]
    fn a_run_that_measured_nothing_does_not_pass() {
        let verdict = judge(&Observed::default(), &budget());

        assert!(!verdict.pass);
        assert!(verdict.reasons.iter().any(|reason| reason == "no order was accepted"));
    }
}
