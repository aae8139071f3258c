//! `order-consumer progress`: shows how far each stage is, and moves one past records that Kafka no longer has, which a
//! stage never does by itself.
//!
//! Moving raises the partition's epoch in the same statement: a stage that is still at work is fenced by it, and goes on
//! from the new offset when it claims the partition again.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use producers::kafka::KafkaArgs;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row as _};
use uuid::Uuid;

use crate::broker::topic_ids::{TopicIds, is_another};
use crate::dead_letters::known_stage;
use crate::dead_letters::text::{json_line, print, safe, table, time};

/// Show how far each stage is, or move one past records that are lost
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer progress ls --stage payment
  order-consumer progress accept-loss --stage payment --topic inventory --partition 3")]
pub struct ProgressArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    Ls(LsArgs),
    AcceptLoss(AcceptLossArgs),
}

/// List how far each stage is in each partition, and who owns it
#[derive(Args, Clone, Debug)]
struct LsArgs {
    /// Only this stage.
    #[arg(long, value_name = "STAGE", value_parser = known_stage)]
    stage: Option<String>,

    /// One JSON object per partition.
    #[arg(long)]
    json: bool,
}

/// Let a stage go on although records are lost
///
/// For a stage that stopped because Kafka no longer has the records it needs (deleted before they were read), or has
/// others than it has read already (the topic was made anew, or the broker lost its tail). Says what would be given up
/// and changes nothing, unless --yes is given. Then start the stage again.
///
/// Orders whose events are given up do not go on; `order-consumer reconcile` names them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer progress accept-loss --stage payment --topic inventory --partition 3          what would be lost?
  order-consumer progress accept-loss --stage payment --topic inventory --partition 3 --yes")]
struct AcceptLossArgs {
    /// The stage.
    #[arg(long, value_name = "STAGE", value_parser = known_stage)]
    stage: String,

    /// Name of the topic on the broker, as the stage's error and `progress ls` give it.
    #[arg(long, value_name = "TOPIC")]
    topic: String,

    /// Number of the partition.
    #[arg(long, value_name = "N")]
    partition: i32,

    /// Where to go on: the first record that Kafka has, or an offset.
    #[arg(long, value_name = "earliest|OFFSET", default_value = "earliest", value_parser = target)]
    to: Target,

    /// Move although nothing is lost: Kafka has what comes next.
    #[arg(long)]
    force: bool,

    /// Do it.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Offset(i64),
}

/// A row of `stage_progress`.
#[derive(Clone, Debug, Serialize)]
struct Row {
    stage: String,
    topic: String,
    partition: i32,
    next_offset: i64,
    epoch: i64,
    owner: String,
    updated_at: String,
    /// The broker's id of the topic that `next_offset` is of, when it is known.
    topic_id: Option<Uuid>,
}

/// What the broker has: from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Log {
    start: i64,
    end: i64,
}

/// What moving means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    to: i64,
    /// Offsets that are never read: those between, whether or not Kafka still has them.
    given_up: i64,
    /// Offsets that are read although they were passed before. Stages know repeats by their event.
    read_again: i64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("nothing is lost: the log has offsets {start} to {end} and the stage goes on at {next}; --force moves it all the same", start = .0.start, end = .0.end, next = .1)]
    NothingLost(Log, i64),
    #[error("offset {1} is outside of the log, which has {start} to {end}", start = .0.start, end = .0.end)]
    Outside(Log, i64),
}

const BROKER_PATIENCE: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "order-consumer-progress";

/// Does it; `false` when `--yes` is missing.
pub async fn run(
    args: ProgressArgs,
    kafka: &KafkaArgs,
    database: PgConnectOptions,
) -> anyhow::Result<bool> {
    let mut db = PgConnection::connect_with(&database).await.context("connecting to Postgres")?;
    match args.command {
        Command::Ls(args) => ls(&mut db, &args).await.map(|()| true),
        Command::AcceptLoss(args) => accept_loss(&mut db, &args, kafka).await,
    }
}

async fn ls(db: &mut PgConnection, args: &LsArgs) -> anyhow::Result<()> {
    let rows = read(db, args.stage.as_deref()).await?;
    let text = if args.json {
        rows.iter().map(json_line).collect::<Result<String, _>>()?
    } else {
        let cells: Vec<[String; 7]> = rows.iter().map(cells).collect();
        table(["STAGE", "TOPIC", "PARTITION", "NEXT OFFSET", "EPOCH", "UPDATED", "OWNER"], &cells)
    };
    Ok(print(text.as_bytes())?)
}

async fn accept_loss(
    db: &mut PgConnection,
    args: &AcceptLossArgs,
    kafka: &KafkaArgs,
) -> anyhow::Result<bool> {
    let rows = read(db, Some(&args.stage)).await?;
    let Some(row) =
        rows.iter().find(|row| row.topic == args.topic && row.partition == args.partition)
    else {
        bail!(
            "{} never read {} [{}]; see: order-consumer progress ls",
            args.stage,
            args.topic,
            args.partition
        );
    };
    let log = log_of(kafka, &row.topic, row.partition).await?;
    let ids = TopicIds::new(kafka, CLIENT_ID)?.of(&[&row.topic], BROKER_PATIENCE).await?;
    let topic_id = ids.get(&row.topic).copied();
    let anew = is_another(row.topic_id, topic_id);
    // Of another log: nothing of what is there now was read.
    let next = if anew { None } else { Some(row.next_offset) };
    let change = Move::plan(next, log, args.to, args.force)?;
    let what = format!(
        "{} in {} [{}]: from offset {}{} to {}; the log has {} to {}; {} offsets are given up, {} are read again\n",
        row.stage,
        row.topic,
        row.partition,
        row.next_offset,
        if anew { " of a log that is gone" } else { "" },
        change.to,
        log.start,
        log.end,
        change.given_up,
        change.read_again
    );
    print(safe_line(&what).as_bytes())?;
    if !args.yes {
        eprintln!("nothing was changed; --yes does it");
        return Ok(false);
    }
    if !advance(db, row, change.to, topic_id).await? {
        bail!("the stage moved meanwhile, so it is at work; nothing was changed");
    }
    tracing::warn!(
        stage = row.stage,
        topic = row.topic,
        partition = row.partition,
        from_offset = row.next_offset,
        to_offset = change.to,
        given_up = change.given_up,
        read_again = change.read_again,
        epoch = row.epoch + 1,
        "{} offsets of {} [{}] were given up for {} by hand",
        change.given_up,
        row.topic,
        row.partition,
        row.stage
    );
    Ok(true)
}

impl Move {
    /// `next`: where the stage goes on; `None` when that is an offset of another log.
    fn plan(next: Option<i64>, log: Log, to: Target, force: bool) -> Result<Self, Refusal> {
        if let Some(next) = next.filter(|next| (log.start..=log.end).contains(next))
            && !force
        {
            return Err(Refusal::NothingLost(log, next));
        }
        let to = match to {
            Target::Earliest => log.start,
            Target::Offset(offset) if (log.start..=log.end).contains(&offset) => offset,
            Target::Offset(offset) => return Err(Refusal::Outside(log, offset)),
        };
        // In another log, and beyond the end of this one, offsets mean other records than those read.
        let given_up = (to - next.unwrap_or(log.start)).max(0);
        let read_again = (next.unwrap_or(log.end).min(log.end) - to).max(0);
        Ok(Self { to, given_up, read_again })
    }
}

fn target(text: &str) -> Result<Target, &'static str> {
    match text {
        "earliest" => Ok(Target::Earliest),
        offset => match offset.parse() {
            Ok(offset @ 0..) => Ok(Target::Offset(offset)),
            _ => Err("either earliest or an offset"),
        },
    }
}

fn cells(row: &Row) -> [String; 7] {
    [
        safe(&row.stage).into_owned(),
        safe(&row.topic).into_owned(),
        row.partition.to_string(),
        row.next_offset.to_string(),
        row.epoch.to_string(),
        row.updated_at.clone(),
        safe(&row.owner).into_owned(),
    ]
}

fn safe_line(line: &str) -> String {
    format!("{}\n", safe(line.trim_end()))
}

async fn log_of(kafka: &KafkaArgs, topic: &str, partition: i32) -> anyhow::Result<Log> {
    let config = kafka.client_config(CLIENT_ID)?;
    let topic = topic.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            BaseConsumer::from_config(&config).context("creating a Kafka client")?;
        let (start, end) =
            consumer.fetch_watermarks(&topic, partition, BROKER_PATIENCE).with_context(|| {
                format!("asking where the log of {topic} [{partition}] starts and ends")
            })?;
        anyhow::Ok(Log { start, end })
    });
    asked.await.context("the thread that asks Kafka ended early")?
}

async fn read(db: &mut PgConnection, stage: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query(
        "select stage, topic, partition, next_offset, epoch, owner, (extract(epoch from updated_at) * 1000000)::bigint, topic_id
           from stage_progress
          where $1::text is null or stage = $1
          order by stage, topic, partition",
    )
    .bind(stage)
    .fetch_all(db)
    .await
    .context("reading stage_progress; was the database migrated? order-consumer migrate")?;
    rows.iter()
        .map(|row| {
            Ok(Row {
                stage: row.try_get(0)?,
                topic: row.try_get(1)?,
                partition: row.try_get(2)?,
                next_offset: row.try_get(3)?,
                epoch: row.try_get(4)?,
                owner: row.try_get(5)?,
                updated_at: time(Some(row.try_get(6)?)),
                topic_id: row.try_get(7)?,
            })
        })
        .collect()
}

/// Moves a partition, in the log of `topic_id`, unless it moved or changed hands since `row` was read. `false`: it did.
async fn advance(
    db: &mut PgConnection,
    row: &Row,
    to: i64,
    topic_id: Option<Uuid>,
) -> anyhow::Result<bool> {
    let done = sqlx::query(
        "update stage_progress
            set next_offset = $6, epoch = epoch + 1, updated_at = now(), topic_id = coalesce($7, topic_id)
          where stage = $1 and topic = $2 and partition = $3 and next_offset = $4 and epoch = $5",
    )
    .bind(&row.stage)
    .bind(&row.topic)
    .bind(row.partition)
    .bind(row.next_offset)
    .bind(row.epoch)
    .bind(to)
    .bind(topic_id)
    .execute(db)
    .await
    .context(
        "moving the partition; whether it happened is not known, see: order-consumer progress ls",
    )?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Log = Log { start: 100, end: 200 };

    #[test]
    fn what_retention_deleted_is_given_up() {
        let change = Move::plan(Some(40), LOG, Target::Earliest, false);

        assert_eq!(change, Ok(Move { to: 100, given_up: 60, read_again: 0 }));
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_start() {
        for next in [Some(900), None] {
            let change = Move::plan(next, LOG, Target::Earliest, false);

            assert_eq!(change, Ok(Move { to: 100, given_up: 0, read_again: 100 }));
        }
        let change = Move::plan(None, LOG, Target::Offset(130), false);
        assert_eq!(change, Ok(Move { to: 130, given_up: 30, read_again: 70 }));
    }

    #[test]
    fn a_stage_that_lost_nothing_stays_where_it_is() {
        for next in [100, 150, 200] {
            assert_eq!(
                Move::plan(Some(next), LOG, Target::Earliest, false),
                Err(Refusal::NothingLost(LOG, next))
            );
        }
        let forced = Move::plan(Some(150), LOG, Target::Offset(170), true);
        assert_eq!(forced, Ok(Move { to: 170, given_up: 20, read_again: 0 }));
    }

    #[test]
    fn nobody_is_sent_outside_of_the_log() {
        for offset in [0, 99, 201] {
            assert_eq!(
                Move::plan(Some(40), LOG, Target::Offset(offset), true),
                Err(Refusal::Outside(LOG, offset))
            );
        }
        assert_eq!(target("200"), Ok(Target::Offset(200)));
        assert!(target("-1").is_err());
        assert!(target("latest").is_err());
    }
}
