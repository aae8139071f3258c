//! `order-consumer dead-letters`: looks at records that a stage set aside, sends them through again, or gives them up.
//!
//! Decides nothing about records itself: a replay puts the record back onto its topic, and the stage applies it under
//! the same rules and in the same transaction as any other.

mod options;
mod filter;
mod rows;
mod line;
mod record;
mod replay;
pub(crate) mod text;
mod listing;

use std::collections::{BTreeSet, HashSet};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use producers::kafka::KafkaArgs;
use producers::publisher::{Publisher, PublisherSettings};
use schemas::Timestamp;
use schemas::codec::MAX_VALUE_BYTES;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

pub(crate) use self::filter::known_stage;
pub use self::options::DeadLettersArgs;

use self::filter::State;
use self::line::{Next, lines_of, next};
use self::listing::{Row, Whole};
use self::options::{Command, Common, DiscardArgs, LsArgs, ReplayArgs, ShowArgs};
use self::record::Correction;
use self::replay::{Replay, Tally};
use self::rows::{Deed, Letter, Line};
use self::text::{json_line, print};
use crate::indicator::Indicator;

/// A replay waits longer for the broker than a request could: nobody is kept waiting.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for the records of one round part, each as large as the broker takes them.
const QUEUE_KIB: u32 = 256 * 1024;

/// Does it; `false` when some letters could not be replayed or discarded.
pub async fn run(
    args: DeadLettersArgs,
    kafka: &KafkaArgs,
    database: PgConnectOptions,
) -> anyhow::Result<bool> {
    let mut db = rows::connect(database).await?;
    match args.command {
        Command::Ls(args) => ls(&mut db, &args).await.map(|()| true),
        Command::Show(args) => show(&mut db, &args).await.map(|()| true),
        Command::Replay(args) => replay(&mut db, &args, kafka).await,
        Command::Discard(args) => discard(&mut db, &args, kafka).await,
    }
}

async fn ls(db: &mut PgConnection, args: &LsArgs) -> anyhow::Result<()> {
    let states = args.state.map_or(State::WAITING.to_vec(), |state| vec![state]);
    let limit = args.limit as usize;
    let mut letters = rows::list(db, &args.filter, &states, i64::from(args.limit) + 1).await?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    if args.json {
        let lines: String =
            letters.iter().map(|letter| json_line(&Row::of(letter))).collect::<Result<_, _>>()?;
        print(lines.as_bytes())?;
    } else if letters.is_empty() {
        eprintln!("no dead letters");
    } else {
        print(listing::table(&letters, Timestamp::now()).as_bytes())?;
    }
    if more {
        eprintln!("there are more than {limit}; see --limit");
    }
    Ok(())
}

async fn show(db: &mut PgConnection, args: &ShowArgs) -> anyhow::Result<()> {
    let letter = existing(db, &[args.id]).await?.remove(0);
    let content =
        rows::contents(db, &[letter.id]).await?.remove(&letter.id).context("the letter is gone")?;
    if args.raw {
        let value = content.value.as_deref().context("the record has no value")?;
        return Ok(print(value)?);
    }
    let actions = rows::actions(db, letter.id).await?;
    let line =
        rows::waiting(db, &[letter.line()]).await?.remove(&letter.line()).unwrap_or_default();
    let elsewhere = rows::elsewhere(db, &letter).await?;
    let whole = Whole {
        letter: &letter,
        content: &content,
        actions: &actions,
        line: &line,
        elsewhere: &elsewhere,
    };
    let text = if args.json { whole.json()? } else { whole.text(Timestamp::now()) };
    Ok(print(text.as_bytes())?)
}

async fn replay(
    db: &mut PgConnection,
    args: &ReplayArgs,
    kafka: &KafkaArgs,
) -> anyhow::Result<bool> {
    let correction = correction(args)?;
    let chosen = chosen(db, args).await?;
    let lines = lines_of(&chosen);
    if lines.is_empty() {
        eprintln!("nothing waits");
    }
    let chosen = chosen.iter().map(|letter| letter.id).collect();
    replay_lines(db, &lines, chosen, correction, args.dry_run, &args.common, kafka).await
}

async fn discard(
    db: &mut PgConnection,
    args: &DiscardArgs,
    kafka: &KafkaArgs,
) -> anyhow::Result<bool> {
    let letters = existing(db, &args.ids).await?;
    let deed = Deed { action: &format!("discard: {}", args.reason), actor: &args.common.actor() };
    let discarded = rows::discard(db, &args.ids, args.with_parked, deed).await?;
    for id in &discarded {
        print(format!("discarded {id}\n").as_bytes())?;
    }
    let mut well = true;
    for letter in letters.iter().filter(|letter| !discarded.contains(&letter.id)) {
        let now = rows::states(db, &[letter.id]).await?.remove(&letter.id);
        let state = now.map_or("gone", |(state, _)| state.as_str());
        eprintln!("{} is {state} already", letter.id);
        well &= state == State::Discarded.as_str();
    }
    // What is left of these orders goes on up to the next letter that was rejected itself.
    let lines: Vec<Line> = lines_of(&letters).into_iter().collect();
    let mut left = rows::waiting(db, &lines).await?;
    left.retain(|_, waiting| matches!(next(waiting, &HashSet::new()), Next::Replay(_)));
    let lines: BTreeSet<Line> = left.into_keys().collect();
    if lines.is_empty() {
        return Ok(well);
    }
    let replayed =
        replay_lines(db, &lines, HashSet::new(), Correction::default(), false, &args.common, kafka)
            .await?;
    Ok(well && replayed)
}

async fn replay_lines(
    db: &mut PgConnection,
    lines: &BTreeSet<Line>,
    chosen: HashSet<i64>,
    correction: Correction,
    dry_run: bool,
    common: &Common,
    kafka: &KafkaArgs,
) -> anyhow::Result<bool> {
    let settings = PublisherSettings {
        delivery_timeout: DELIVERY_TIMEOUT,
        queue_kib: QUEUE_KIB,
        ..PublisherSettings::default()
    };
    let connect = || Publisher::connect(kafka, &settings, "order-consumer-dead-letters");
    let mut replay = Replay {
        db,
        publisher: if dry_run { None } else { Some(connect()?) },
        prefix: &kafka.topic_prefix,
        actor: &common.actor(),
        chosen,
        correction,
        patience: (!common.no_wait).then_some(common.wait),
        indicator: Indicator::on_stderr(),
        tally: Tally::default(),
    };
    if dry_run {
        return replay.rehearse(lines).await.map(|()| true);
    }
    let done = replay.run(lines).await;
    replay.indicator.finish();
    print(replay.tally.summary().as_bytes())?;
    done.map(|()| replay.tally.is_clean(!common.no_wait))
}

/// The letters that the arguments choose and that still wait.
async fn chosen(db: &mut PgConnection, args: &ReplayArgs) -> anyhow::Result<Vec<Letter>> {
    if !args.ids.is_empty() {
        let mut letters = existing(db, &args.ids).await?;
        if let Some(letter) = letters.iter().find(|letter| letter.state == State::Discarded) {
            bail!("dead letter {} was discarded; it cannot be replayed", letter.id);
        }
        for letter in letters.iter().filter(|letter| !letter.state.is_waiting()) {
            eprintln!("{} is {} already", letter.id, letter.state.as_str());
        }
        letters.retain(|letter| letter.state.is_waiting());
        return Ok(letters);
    }
    if args.filter.is_empty() && !args.all {
        bail!("choose letters: ids, --stage, --code, --order, or --all");
    }
    rows::list(db, &args.filter, &State::WAITING, args.limit.map_or(i64::MAX, i64::from)).await
}

/// The letters with these ids; an error when one does not exist.
async fn existing(db: &mut PgConnection, ids: &[i64]) -> anyhow::Result<Vec<Letter>> {
    let letters = rows::by_ids(db, ids).await?;
    let missing: Vec<String> = ids
        .iter()
        .filter(|id| !letters.iter().any(|letter| letter.id == **id))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        bail!("no such dead letter: {}", missing.join(", "));
    }
    Ok(letters)
}

fn correction(args: &ReplayArgs) -> anyhow::Result<Correction> {
    let value = args.value_file.as_deref().map(read_value).transpose()?;
    let correction = Correction { value, key: args.key };
    if !correction.is_none() && args.ids.len() != 1 {
        bail!("--value-file and --key correct one record: give one id");
    }
    Ok(correction)
}

/// Reads no more than could be published.
fn read_value(path: &Path) -> anyhow::Result<Vec<u8>> {
    let limit = MAX_VALUE_BYTES as u64 + 1;
    let mut value = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut value)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut value))
    };
    read.with_context(|| format!("reading the value from {}", path.display()))?;
    if value.len() > MAX_VALUE_BYTES {
        bail!(
            "the value in {} has more than {MAX_VALUE_BYTES} bytes, the most that stages read",
            path.display()
        );
    }
    Ok(value)
}
