//! What the boards must show of what happened, moment by moment. A tolerance is what scrapes, windows and extrapolation may
//! cost, and never as much as a wrong factor would.

use anyhow::ensure;

use super::comparison::{Known, Look};
use super::happened::{DEAD, Happened, SHORT_SKU, seconds_of};
use crate::scene::shorter;

/// Of an average over a window that is full.
const OF_A_RATE: f64 = 0.12;
/// Of a rate over a handful of scrapes, averaged; and of workflows, which end a while after their order.
const OF_A_SHORT_RATE: f64 = 0.2;
/// Of one step of a counter, as a rate over a few scrapes has it: extrapolated, when some of them were late, to nearly twice
/// as much. That it shows at all, and not sixty of it, is what this can tell.
const OF_A_STEP: f64 = 0.9;
/// Of a total, by extrapolation.
const OF_A_TOTAL: f64 = 0.02;
/// Of a share of some dozens.
const OF_A_SHARE: f64 = 0.1;
/// Seconds: a picture, a scrape and an evaluation ago.
const OF_AN_AGE: f64 = 3.0;
/// What is counted, while nothing moves.
const EXACT: f64 = 0.0;

/// Everything that is known. An error when something did not happen that should have.
pub(super) fn known(happened: &Happened) -> anyhow::Result<Vec<Known>> {
    let mut known = steady(happened)?;
    known.extend(waiting(happened)?);
    known.extend(standing(happened)?);
    known.extend(lively(happened)?);
    known.extend(done(happened)?);
    Ok(known)
}

/// Rates, while orders come in at one that is known.
fn steady(happened: &Happened) -> anyhow::Result<Vec<Known>> {
    let (at, rate) = (Look::At(happened.steady), happened.per_second);
    let before = Look::Before(happened.steady);
    let rate_of = |place, look, of: f64| Known::new(place, look, rate, rate * of);
    let requests = ("order-api", "How many requests are there?", "A");
    let answers = ("order-api", "How are requests answered?", "A");
    let ends = ("order-orders", "How many orders end how?", "A");
    let starts = ("order-temporal", "How many workflows start per second?", "A");
    let closes = ("order-temporal", "How do workflows end?", "A");
    let refused = ("order-api", "What share of requests about orders is not served?", "A");
    let created = ("order-orders", "How many orders are created per second?", "A");
    let mut known = vec![
        rate_of(("order-pipeline", "How many orders come in per second?", "A"), at, OF_A_RATE),
        rate_of(created, at, OF_A_RATE),
        rate_of(requests, at, OF_A_RATE).with("endpoint", "/orders").with("method", "POST"),
        rate_of(answers, at, OF_A_RATE).with("status", "202"),
        rate_of(ends, at, OF_A_RATE).with("status", "shipped"),
        rate_of(starts, at, OF_A_SHORT_RATE),
        rate_of(closes, at, OF_A_SHORT_RATE).with("outcome", "completed"),
        Known::new(refused, at, 0.0, EXACT),
    ];
    for id in ["A", "B"] {
        let place = ("order-load", "How many orders are accepted and finished?", id);
        known.push(rate_of(place, before, OF_A_SHORT_RATE));
    }
    for stage in Happened::others().chain([DEAD]) {
        let events = happened.events_per_second(stage, happened.steady, window());
        ensure!(events >= rate * 0.8, "{stage} had {events} events per second");
        for (board, look, of) in
            [("order-pipeline", at, OF_A_RATE), ("order-load", before, OF_A_SHORT_RATE)]
        {
            let place = (board, "How fast is each stage?", "A");
            known.push(Known::new(place, look, events, events * of).with("stage", stage));
        }
    }
    Ok(known)
}

/// Lag, while a stage is dead and nothing moves.
fn waiting(happened: &Happened) -> anyhow::Result<Vec<Known>> {
    let moment = happened.still.at;
    let at = Look::At(moment);
    let (waited, first) = happened.waited(moment);
    let waiting: u64 = waited.values().sum();
    ensure!(waiting > 20, "only {waiting} records wait for {DEAD}");
    let group = format!("orders.{DEAD}");
    let records = ("order-lag", "How many records wait for each stage?", "A");
    let by_group = ("order-lag", "How many records wait for each group?", "A");
    let mut known = vec![
        Known::new(records, at, waiting as f64, EXACT).with("stage", DEAD),
        Known::new(by_group, at, waiting as f64, EXACT).with("consumergroup", &group),
    ];
    for stage in Happened::others() {
        known.push(Known::new(records, at, 0.0, EXACT).with("stage", stage));
    }
    for ((topic, partition), waiting) in waited {
        let place = ("order-lag", "Which partitions are furthest behind?", "A");
        let here = Known::new(place, at, waiting as f64, EXACT).with("stage", DEAD);
        known.push(here.with("topic", topic.name()).with("partition", &partition.to_string()));
    }
    for (topic, records) in &happened.done.records {
        let end = records.iter().filter(|record| seconds_of(record) <= moment).count() as f64;
        let place = ("order-lag", "How do positions follow the ends of topics?", "A");
        known.push(Known::new(place, at, end, EXACT).with("topic", topic.name()));
    }
    let age = |board, title| Known::new((board, title, "A"), at, moment - first, OF_AN_AGE);
    known.extend([
        age("order-pipeline", "How many seconds behind is each stage?").with("stage", DEAD),
        age("order-pipeline", "How far behind is the slowest stage?"),
        age("order-lag", "How many seconds behind is each stage?").with("stage", DEAD),
        age("order-lag", "How many seconds behind is each group?").with("consumergroup", &group),
    ]);
    Ok(known)
}

/// What is counted, at the same moment.
fn standing(happened: &Happened) -> anyhow::Result<Vec<Known>> {
    let still = &happened.still;
    let at = Look::At(still.at);
    let alive = ("order-pipeline", "Has every stage a process, and what does it hold?", "A");
    let short = ("order-orders", "What is nearly sold out?", "A");
    let living = Happened::others().count() as f64;
    let mut known = vec![
        Known::new(alive, Look::Count(still.at), living, EXACT),
        Known::new(alive, Look::Count(still.at), 0.0, EXACT).with("stage", DEAD),
        Known::new(short, at, still.short_left as f64, EXACT).with("sku", SHORT_SKU),
    ];
    for (board, title, count) in [
        ("order-pipeline", "How many dead letters wait for a person?", still.dead_letters),
        ("order-pipeline", "How many orders are parked?", still.parked),
        ("order-orders", "How many SKUs are nearly sold out?", still.short_skus),
    ] {
        ensure!(count > 0, "{title} None");
        known.push(Known::new((board, title, "A"), at, count as f64, EXACT));
    }
    for (status, orders) in &still.statuses {
        let place = ("order-orders", "Where do all orders stand?", "A");
        known.push(Known::new(place, at, *orders as f64, EXACT).with("status", status));
    }
    Ok(known)
}

/// Payments, and what was pushed.
fn lively(happened: &Happened) -> anyhow::Result<Vec<Known>> {
    let at = Look::At(happened.lively);
    let (captured, declined) = happened.decided(happened.lively, window());
    ensure!(declined > 10 && captured > 10, "{declined} payments declined, {captured} captured");
    let share = declined as f64 / (declined + captured) as f64;
    let declines = ("order-orders", "What share of payments is declined?", "A");
    let succeed = ("order-orders", "How many payments succeed?", "A");
    let orders = ("order-load", "What became of the orders of a run?", "A");
    let passed = ("order-load", "Which runs passed?", "A");
    let watchdog = ("order-monitoring", "Does Watchdog fire?", "A");
    let accepted = Known::new(orders, at, happened.run_accepted as f64, EXACT);
    Ok(vec![
        Known::new(declines, at, share, OF_A_SHARE),
        Known::new(succeed, at, 1.0 - share, OF_A_SHARE),
        accepted.with("run", &happened.run).with("outcome", "accepted"),
        Known::new(passed, at, 1.0, EXACT).with("run", &happened.run),
        Known::new(watchdog, at, 1.0, EXACT),
    ])
}

/// Totals of the whole run, and the worst of it.
fn done(happened: &Happened) -> anyhow::Result<Vec<Known>> {
    let done = &happened.done;
    let at = Look::At(done.at);
    let total = |place, count: f64| Known::new(place, at, count, (count * OF_A_TOTAL).max(1.5));
    let accepted = done.accepted as f64;
    let finals = ("order-load", "How many orders became final?", "A");
    let worst = happened.revived - happened.waited(happened.still.at).1;
    let by_stage = ("order-lag", "How far behind was each stage at worst?", "A");
    let highest = ("order-load", "What was the highest lag?", "A");
    let size = ("order-postgres", "How large are the databases?", "A");
    let bytes = done.database_bytes as f64;
    let mut known = vec![
        total(("order-pipeline", "How many orders came in?", "A"), accepted),
        total(("order-orders", "How many orders were created?", "A"), accepted),
        total(("order-load", "How many orders were accepted?", "A"), accepted),
        total(finals, happened.finals() as f64),
        Known::new(by_stage, at, worst, OF_AN_AGE).with("stage", DEAD),
        Known::new(highest, at, worst, OF_AN_AGE),
        Known::new(size, at, bytes, bytes * OF_A_RATE).with("datname", &done.database),
    ];
    for board in ["order-api", "order-load"] {
        let place = (board, "How many requests were not served?", "A");
        known.push(Known::new(place, at, 0.0, EXACT));
    }
    for status in ["shipped", "declined", "cancelled"] {
        let orders = done.statuses.get(status).copied().unwrap_or(0);
        ensure!(orders > 0, "no order is {status}");
        let place = ("order-orders", "How do orders end?", "A");
        known.push(total(place, orders as f64).with("status", status));
    }
    ensure!(!done.dead_letters.is_empty(), "no record was set aside");
    for ((stage, code), count) in &done.dead_letters {
        let place = ("order-pipeline", "Which records become dead letters?", "A");
        // A rate over a window that held all of them, times its length.
        let look = Look::Peak((happened.begun, done.at), window());
        let count = *count as f64;
        let here = Known::new(place, look, count, count * OF_A_STEP);
        known.push(here.with("stage", stage).with("code", code));
    }
    Ok(known)
}

/// Five minutes, in faster time: the window of most rules.
fn window() -> f64 {
    shorter(300).as_secs_f64()
}
