//! The result, for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::BenchArgs;
use super::Part;
use super::chain::Chain;
use super::drain::Drain;
use super::http::Http;
use super::sample::Sample;
use super::supervision::Supervision;
use super::watched::Watched;
use crate::usage::Cpu;

const MIB: f64 = 1024.0 * 1024.0;

const GOAL_TO_LIMIT: f64 = 0.8;
const GOAL_CPU_PER_MILLION: f64 = 13.0;
const GOAL_FINAL_PER_SECOND: f64 = 5_000.0;
const GOAL_SINGLE_PER_SECOND: f64 = 10_000.0;
const GOAL_BATCH_PER_SECOND: f64 = 50_000.0;
const GOAL_TO_BARE: f64 = 0.9;
/// Of the CPU time that everything takes when nobody looks, in percent.
const GOAL_WATCHED: f64 = 2.0;
/// "Unchanged", as far as a median of some thousand orders can tell.
const GOAL_LATENCY: f64 = 1.1;
const GOAL_MEMORY_MIB: f64 = 150.0;
/// What the second half of a drain may need more than the first and still be called flat.
const GOAL_FLAT: f64 = 1.1;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    rounds: u32,
    pub(super) drain: Option<Drain>,
    pub(super) chain: Option<Chain>,
    pub(super) http: Option<Http>,
    pub(super) supervision: Option<Supervision>,
    pub(super) watched: Option<Watched>,
    #[serde(skip)]
    only: Vec<Part>,
}

impl Report {
    pub(super) fn new(args: &BenchArgs) -> Self {
        Self {
            rounds: args.rounds,
            drain: None,
            chain: None,
            http: None,
            supervision: None,
            watched: None,
            only: args.only.clone(),
        }
    }

    fn faults(&self) -> impl Iterator<Item = &String> {
        let drain = self.drain.iter().flat_map(|drain| &drain.faults);
        let chain = self.chain.iter().flat_map(|chain| &chain.faults);
        let http = self.http.iter().flat_map(|http| &http.faults);
        let supervision = self.supervision.iter().flat_map(|supervision| &supervision.faults);
        let watched = self.watched.iter().flat_map(|watched| &watched.faults);
        drain.chain(chain).chain(http).chain(supervision).chain(watched)
    }

    /// Whether every count was right.
    pub(super) fn is_sound(&self) -> bool {
        self.faults().next().is_none()
    }

    /// Tables, then a line per goal, then what is wrong.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut goals = Goals::default();
        let wants = |part| self.only.contains(&part);
        if let Some(drain) = &self.drain {
            if wants(Part::Drain) {
                self.write_drain(&mut text, drain, &mut goals);
            }
            if wants(Part::Memory) {
                write_memory(&mut text, drain, &mut goals);
            }
        }
        if let Some(chain) = &self.chain {
            text +=
                &format!("b  {} orders to their end, all stages in one process\n", chain.orders);
            text += &heading("orders/s", "CPU s/1000", &chain.all_stages.cpu);
            text += &line("all stages", &chain.all_stages, &chain.all_stages.cpu);
            text += "\n";
            let rate = chain.all_stages.per_second;
            goals.at_least("b  orders final per second", rate, GOAL_FINAL_PER_SECOND);
        }
        if let Some(http) = &self.http {
            write_http(&mut text, http, &mut goals);
        }
        if let Some(supervision) = &self.supervision {
            write_supervision(&mut text, supervision, &mut goals);
        }
        if let Some(watched) = &self.watched {
            write_watched(&mut text, watched, &mut goals);
        }
        text += &goals.text;
        for fault in self.faults() {
            text += &format!("WRONG: {fault}\n");
        }
        text.trim_end().to_owned()
    }

    fn write_drain(&self, text: &mut String, drain: &Drain, goals: &mut Goals) {
        let cpu = &drain.stage.cpu;
        *text += &format!(
            "a  {} order-placed events into Postgres; medians of {} round(s)\n",
            drain.events, self.rounds
        );
        *text += &heading("events/s", "CPU s/M", cpu);
        *text += &line("order stage, from the topic", &drain.stage, cpu);
        *text += &line("limit: upsert of 8 columns, from memory", &drain.upsert, cpu);
        *text += &line("limit: the stage's own SQL, from memory", &drain.stage_sql, cpu);
        *text += &format!(
            "stage / upsert {:.2}, stage / own SQL {:.2}; {:.0} events per transaction\n\n",
            drain.to_upsert, drain.to_stage_sql, drain.batch
        );
        goals.at_least("a  order stage / upsert limit", drain.to_upsert, GOAL_TO_LIMIT);
        goals.at_most(
            "a  CPU seconds per million events",
            drain.stage.cpu_total(),
            GOAL_CPU_PER_MILLION,
        );
    }
}

fn write_memory(text: &mut String, drain: &Drain, goals: &mut Goals) {
    *text += &format!("d  resident memory while {} events drain\n", drain.events);
    *text += &format!("{:<42}{:>12}{:>12}\n", "", "first half", "second half");
    for (name, memory) in &drain.memory {
        let [first, second] =
            [memory.first_half, memory.second_half].map(|bytes| bytes as f64 / MIB);
        let name = if *name == "client" { "order-consumer" } else { name };
        *text += &format!("{name:<42}{first:>8.0} MiB{second:>8.0} MiB\n");
    }
    *text += "\n";
    if let Some(memory) = drain.memory.get("client") {
        let most = memory.first_half.max(memory.second_half) as f64 / MIB;
        goals.at_most("d  MiB of order-consumer", most, GOAL_MEMORY_MIB);
        let growth = memory.second_half as f64 / memory.first_half.max(1) as f64;
        goals.at_most("d  second half / first half", growth, GOAL_FLAT);
    }
}

fn write_http(text: &mut String, http: &Http, goals: &mut Goals) {
    let Some(first) = http.loads.first() else { return };
    *text += "c  orders accepted over HTTP\n";
    *text += &heading("orders/s", "CPU s/1000", &first.accepted.cpu);
    for load in &http.loads {
        *text += &line(load.name, &load.accepted, &first.accepted.cpu);
    }
    *text +=
        &format!("{:<42}{:>12}{:>12}{:>12}\n", "request latency", "p50 ms", "p99 ms", "refused");
    for load in &http.loads {
        *text += &format!(
            "{:<42}{:>12.2}{:>12.2}{:>12}\n",
            load.name, load.p50_ms, load.p99_ms, load.refused
        );
    }
    *text += "\n";
    let goal = [GOAL_SINGLE_PER_SECOND, GOAL_SINGLE_PER_SECOND, GOAL_BATCH_PER_SECOND];
    for (load, goal) in http.loads.iter().zip(goal) {
        goals.at_least(
            &format!("c  accepted per second, {}", load.name),
            load.accepted.per_second,
            goal,
        );
    }
}

fn write_supervision(text: &mut String, found: &Supervision, goals: &mut Goals) {
    *text += &format!("e  {} signals into Temporal, each the start of a workflow\n", found.signals);
    *text += &heading("signals/s", "CPU s/1000", &found.stage.cpu);
    *text += &line("workflow stage, from the topic", &found.stage, &found.stage.cpu);
    *text += &line("bare client, in a loop", &found.bare, &found.stage.cpu);
    *text += &format!("{:<42}{:>12}{:>12}\n", "orders, accepted to final", "p50 ms", "p95 ms");
    for felt in &found.felt {
        let [p50, p95] = [felt.p50_seconds, felt.p95_seconds].map(|seconds| seconds * 1e3);
        *text += &format!("{:<42}{p50:>12.0}{p95:>12.0}\n", felt.name);
    }
    *text += "\n";
    let to_bare = found.stage.per_second / found.bare.per_second;
    goals.at_least("e  workflow stage / bare client", to_bare, GOAL_TO_BARE);
    if let [alone, .., away] = &found.felt[..] {
        let ratio = away.p50_seconds / alone.p50_seconds;
        goals.at_most("e  latency, Temporal stopped / no stage", ratio, GOAL_LATENCY);
    }
}

fn write_watched(text: &mut String, found: &Watched, goals: &mut Goals) {
    *text += &format!(
        "f  {} order-placed events into Postgres, watched and alone in turns\n",
        found.events
    );
    *text += &heading("events/s", "CPU s/M", &found.alone.cpu);
    *text += &line("alone", &found.alone, &found.alone.cpu);
    for way in &found.ways {
        *text += &line(way.name, &way.sample, &found.alone.cpu);
    }
    for way in &found.ways {
        *text += &format!(
            "{}: rate {:.3} of alone; {:.1} bytes of spans per event\n",
            way.name, way.ratio, way.bytes_per_event
        );
    }
    let percent = found.metrics_share * 100.0;
    *text += &format!("metrics in the process, always on: {percent:.2} % of an event's time\n\n");
    for way in &found.ways {
        let percent = way.cpu_share * 100.0;
        goals.at_most(&format!("f  % of CPU more, {}", way.name), percent, GOAL_WATCHED);
    }
}

fn heading(rate: &str, cpu: &str, names: &Cpu) -> String {
    let mut text = format!("{:<42}{rate:>12}{cpu:>12}", "");
    for name in names.keys() {
        // Writing to a string never fails.
        write!(text, "{name:>13}").ok();
    }
    text.push('\n');
    text
}

fn line(name: &str, sample: &Sample, names: &Cpu) -> String {
    let mut text = format!("{name:<42}{:>12.0}{:>12.3}", sample.per_second, sample.cpu_total());
    for name in names.keys() {
        let seconds = sample.cpu.get(name).copied().unwrap_or(0.0);
        write!(text, "{seconds:>13.3}").ok();
    }
    text.push('\n');
    text
}

/// A line per goal.
#[derive(Default)]
struct Goals {
    text: String,
}

impl Goals {
    fn at_least(&mut self, what: &str, found: f64, goal: f64) {
        self.add(what, found, ">=", goal, found >= goal);
    }

    fn at_most(&mut self, what: &str, found: f64, goal: f64) {
        self.add(what, found, "<=", goal, found <= goal);
    }

    fn add(&mut self, what: &str, found: f64, sign: &str, goal: f64, met: bool) {
        let verdict = if met { "met" } else { "missed" };
        let [found, goal] =
            [found, goal].map(|n| if n >= 1_000.0 { format!("{n:.0}") } else { format!("{n:.2}") });
        self.text += &format!("{what:<58}{found:>10}   goal {sign} {goal:<8} {verdict}\n");
    }
}
