//! `order-consumer status`: where every stage is and how fast it goes, from the admin endpoints of the processes; when none
//! of them answers, what Postgres and Kafka still tell.
//!
//! On a terminal it is a live view, elsewhere plain lines. An endpoint that does not answer is shown as such.

mod endpoints;
mod exposition;
mod pipeline;
mod screen;
mod tables;
mod terminal;

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use producers::kafka::KafkaArgs;
use producers::postgres::connect_options;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use endpoints::{Answer, Asker, Endpoint};
use pipeline::{Pipeline, Stage};
use terminal::{Terminal, Wish};

use crate::stages::CATALOGUE;

/// Where the stages of one machine listen.
const STAGES: &str = "127.0.0.1:9102";
/// Where a producer, a Temporal worker and a lag exporter listen, if they are there.
const OTHERS: [&str; 3] = ["127.0.0.1:9101", "127.0.0.1:9103", "127.0.0.1:9105"];
/// Postgres and Kafka are asked less often than endpoints.
const TABLES_EVERY: u32 = 5;

/// Show where every stage is and how fast it goes
///
/// Asks the /metrics of the processes; without an answer from any, Postgres and Kafka (DATABASE_URL, KAFKA_BROKERS).
/// P50 and P99 are of the time from records in hand to commit. What is not known is shown as -.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer status                                    live; q or Ctrl-C ends it
  order-consumer status --once                             a table
  order-consumer status --json | jq 'select(.lag_seconds > 60)'
  order-consumer status --endpoint 10.0.0.7:9102,10.0.0.8:9102")]
pub struct StatusArgs {
    /// One JSON object per stage, once.
    #[arg(long)]
    json: bool,

    /// A table, once.
    #[arg(long)]
    once: bool,

    /// Admin addresses to ask; by default 127.0.0.1:9102, and 9101, 9103 and 9105 when somebody answers there.
    #[arg(
        long = "endpoint",
        env = "STATUS_ENDPOINTS",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    endpoints: Vec<String>,

    /// Time between two looks; rates are between them.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
}

/// Shows it: once, or until told to stop. `false`: nothing is known of any stage.
pub async fn run(args: &StatusArgs, kafka: &KafkaArgs) -> anyhow::Result<bool> {
    let mut watch = Watch {
        asker: Asker::new()?,
        endpoints: chosen(&args.endpoints),
        kafka,
        before: None,
        tables: None,
        looks: 0,
    };
    let pause = Duration::from_millis(args.interval_ms);
    let shown = if args.json || args.once {
        once(args.json, pause, &mut watch).await
    } else if stdout().is_terminal() {
        return live(pause, &mut watch).await.map(|()| true);
    } else {
        follow(pause, &mut watch).await.map(|()| true)
    };
    match shown {
        // Whoever read it has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(true),
        shown => shown,
    }
}

/// Looks, and remembers the look before.
struct Watch<'a> {
    asker: Asker,
    endpoints: Vec<Endpoint>,
    kafka: &'a KafkaArgs,
    before: Option<Vec<Answer>>,
    /// What Postgres and Kafka told last.
    tables: Option<Result<Vec<Stage>, String>>,
    looks: u32,
}

/// What there is to show.
#[derive(Clone, Default)]
struct View {
    pipeline: Pipeline,
    note: Option<String>,
}

impl Watch<'_> {
    async fn look(&mut self) -> View {
        let names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
        let now = self.asker.ask(&self.endpoints).await;
        let prefix = &self.kafka.topic_prefix;
        let mut pipeline = Pipeline::of(&names, prefix, self.before.as_deref(), &now);
        self.before = Some(now);
        let mut note = None;
        if pipeline.is_known() {
            self.tables = None;
        } else {
            if self.tables.is_none() || self.looks.is_multiple_of(TABLES_EVERY) {
                self.tables =
                    Some(stages_of_tables(self.kafka).await.map_err(|e| format!("{e:#}")));
            }
            match &self.tables {
                Some(Ok(stages)) => {
                    pipeline.stages.clone_from(stages);
                    note = Some("no endpoint answers: as Postgres and Kafka have it".to_owned());
                }
                Some(Err(why)) => {
                    note = Some(format!("no endpoint answers, and of Postgres and Kafka: {why}"));
                }
                None => {}
            }
        }
        self.looks = self.looks.wrapping_add(1);
        View { pipeline, note }
    }
}

async fn once(json: bool, pause: Duration, watch: &mut Watch<'_>) -> anyhow::Result<bool> {
    let mut view = watch.look().await;
    if view.pipeline.is_known() {
        // Rates are between two looks.
        sleep(pause).await;
        view = watch.look().await;
    }
    let View { pipeline, note } = view;
    let mut text = String::new();
    if json {
        for stage in &pipeline.stages {
            text.push_str(&serde_json::to_string(stage)?);
            text.push('\n');
        }
    } else {
        text = screen::plain(&screen::table(&pipeline.stages));
    }
    stdout().write_all(text.as_bytes())?;
    if let Some(note) = note {
        tracing::warn!("{note}");
    }
    Ok(pipeline.stages.iter().any(|stage| stage.source != "none"))
}

/// A table after another.
async fn follow(pause: Duration, watch: &mut Watch<'_>) -> anyhow::Result<()> {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let View { pipeline, note } = watch.look().await;
        let hint = schemas::Timestamp::now().to_string();
        let lines = screen::lines(&pipeline, note.as_deref(), &hint, (120, usize::MAX));
        stdout().write_all(format!("{}\n", screen::plain(&lines)).as_bytes())?;
        stdout().flush()?;
    }
}

async fn live(pause: Duration, watch: &mut Watch<'_>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut terminal = Terminal::open().context("taking over the terminal")?;
    let mut view = View { note: Some("looking …".to_owned()), ..View::default() };
    let hint = format!("every {:.1} s   q ends", pause.as_secs_f64());
    loop {
        let size = terminal.size();
        terminal.draw(&screen::lines(&view.pipeline, view.note.as_deref(), &hint, size))?;
        let looked = async {
            ticks.tick().await;
            watch.look().await
        };
        tokio::select! {
            seen = looked => view = seen,
            wish = terminal.wish() => match wish {
                Some(Wish::Redraw) => {}
                Some(Wish::End) | None => return Ok(()),
            },
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
        }
    }
}

/// What Postgres and Kafka alone know.
async fn stages_of_tables(kafka: &KafkaArgs) -> anyhow::Result<Vec<Stage>> {
    let rows = tables::read(kafka, &connect_options("order-consumer-status")?).await?;
    let stage = |row: tables::StageStatus| Stage {
        stage: row.stage,
        source: "postgres",
        partitions: Some(row.partitions),
        owners: Some(row.owners),
        lag: Some(row.lag),
        outbox: Some(row.outbox),
        dead_letters: Some(row.dead_letters),
        parked_orders: Some(row.parked_orders),
        ..Stage::default()
    };
    Ok(rows.into_iter().map(stage).collect())
}

fn chosen(named: &[String]) -> Vec<Endpoint> {
    let endpoint = |address: &str, optional| Endpoint { address: address.to_owned(), optional };
    if named.is_empty() {
        let others = OTHERS.iter().map(|address| endpoint(address, true));
        return std::iter::once(endpoint(STAGES, false)).chain(others).collect();
    }
    named.iter().map(|address| endpoint(address, false)).collect()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
