//! `order-consumer dead-letters`: looks at records that a stage set aside, sends them through again, or gives them up.
//!
//! Decides nothing about records itself: a replay puts the record back onto its topic, and the stage applies it under
//! the same rules and in the same transaction as any other.

mod filter;
mod rows;
mod line;
mod record;
mod replay;
mod text;
mod listing;
mod teller;

use std::collections::{BTreeSet, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use producers::kafka::KafkaArgs;
use producers::publisher::{Publisher, PublisherSettings};
use producers::serve::duration;
use schemas::Timestamp;
use schemas::codec::MAX_VALUE_BYTES;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

pub(crate) use self::filter::known_stage;
pub(crate) use self::text::{json_line, print, safe, table, time};

use self::filter::{Filter, State};
use self::line::lines_of;
use self::listing::{Row, Whole};
use self::record::Correction;
use self::replay::{Replay, Tally};
use self::rows::{Deed, Letter, Line};
use self::teller::Teller;
use self::text::cleaned;

/// What to do with dead letters.
#[derive(Args, Clone, Debug)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    Ls(LsArgs),
    Show(ShowArgs),
    Replay(Box<ReplayArgs>),
    Discard(DiscardArgs),
}

/// List what was set aside, oldest first
///
/// Without --state: everything that still waits, which is what is open, parked or replaying. BEHIND is how many later
/// events of the same order wait at the same stage until this one is replayed or discarded.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters ls --stage payment --state open
  order-consumer dead-letters ls --json | jq -r .code | sort | uniq -c")]
struct LsArgs {
    #[command(flatten)]
    filter: Filter,

    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<State>,

    /// Most letters to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,

    /// One JSON object per letter.
    #[arg(long)]
    json: bool,
}

/// Show one letter: its record, why it was set aside, what waits, what was done
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters show 12
  order-consumer dead-letters show 12 --raw > value.json        to correct it, see replay --value-file")]
struct ShowArgs {
    /// Id of the letter.
    id: i64,

    /// As one JSON object. Bytes that are not UTF-8 are given in hex.
    #[arg(long)]
    json: bool,

    /// The bytes of the value and nothing else, exactly as they were sent.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Send letters through their stages again
///
/// Each record goes back to the topic it came from, with its bytes, key and headers, and is applied by the stage that
/// set it aside; other stages pass it over. What waits behind a letter follows, one event at a time and in order, for
/// as long as each one is applied; an event that is rejected again stays open, and what is behind it waits on.
///
/// Records that this build cannot read are not published: they would be rejected again. Correct the record with
/// --value-file or --key, fix the stage, or discard the letter.
///
/// Repeating it is safe, also after it was interrupted: no record is applied twice. Each stage that set a record aside
/// has a letter of its own, and each is replayed by itself; `show` names them.
///
/// Exit status 0: everything chosen was applied. 1: some were rejected again or still wait.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters replay --stage inventory --code unknown_type --dry-run
  order-consumer dead-letters replay --stage inventory --code unknown_type
  order-consumer dead-letters replay 12 15 --wait 5s
  order-consumer dead-letters show 12 --raw | jq -c '.total_cents = 1998' \\
    | order-consumer dead-letters replay 12 --value-file -")]
struct ReplayArgs {
    /// Ids of letters.
    #[arg(value_name = "ID", conflicts_with_all = ["stage", "code", "order", "all"])]
    ids: Vec<i64>,

    #[command(flatten)]
    filter: Filter,

    /// Everything that waits.
    #[arg(long, conflicts_with_all = ["stage", "code", "order"])]
    all: bool,

    /// Most letters to choose, oldest first; what waits behind them is not counted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// Say what would be published where, and change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Publish this value instead of the original one; "-" reads it from standard input. Noted as a correction.
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,

    /// Publish under the key of this order instead of the original key. Noted as a correction.
    #[arg(long, value_name = "UUID")]
    key: Option<Uuid>,

    #[command(flatten)]
    common: Common,
}

/// Give letters up for good
///
/// Their records will never be applied at this stage. What waits behind them is sound and follows as in a replay,
/// unless --with-parked gives it up as well.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters discard 12 --reason 'test data of the load run'
  order-consumer dead-letters discard 12 --with-parked --reason 'order refunded by hand, ticket 4711'")]
struct DiscardArgs {
    /// Ids of letters.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<i64>,

    /// Why; kept with the letter.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,

    /// Also give up the parked events behind them. Events behind them that were rejected themselves stay.
    #[arg(long)]
    with_parked: bool,

    #[command(flatten)]
    common: Common,
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// How long to wait for a stage when none of the letters settles.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,

    /// Publish the first letter of each order and leave; the rest follows when this command is run again.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,

    /// Who does this, for the record; user@host when absent.
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

/// Longest reason and name that are kept.
const MAX_REASON_CHARS: usize = 300;
const MAX_ACTOR_CHARS: usize = 100;
/// A replay waits longer for the broker than a request could: nobody is kept waiting.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for the records of one round part, each as large as the broker takes them.
const QUEUE_KIB: u32 = 256 * 1024;

/// Does it; `false` when some letters could not be replayed or discarded.
pub async fn run(args: DeadLettersArgs, kafka: &KafkaArgs, database: PgConnectOptions) -> anyhow::Result<bool> {
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
        let lines: String = letters.iter().map(|letter| json_line(&Row::of(letter))).collect::<Result<_, _>>()?;
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
    let content = rows::contents(db, &[letter.id]).await?.remove(&letter.id).context("the letter is gone")?;
    if args.raw {
        let value = content.value.as_deref().context("the record has no value")?;
        return Ok(print(value)?);
    }
    let actions = rows::actions(db, letter.id).await?;
    let line = rows::waiting(db, &[letter.line()]).await?.remove(&letter.line()).unwrap_or_default();
    let elsewhere = rows::elsewhere(db, &letter).await?;
    let whole = Whole { letter: &letter, content: &content, actions: &actions, line: &line, elsewhere: &elsewhere };
    let text = if args.json { whole.json()? } else { whole.text(Timestamp::now()) };
    Ok(print(text.as_bytes())?)
}

async fn replay(db: &mut PgConnection, args: &ReplayArgs, kafka: &KafkaArgs) -> anyhow::Result<bool> {
    let correction = correction(args)?;
    let chosen = chosen(db, args).await?;
    let lines = lines_of(&chosen);
    if lines.is_empty() {
        eprintln!("nothing waits");
    }
    let chosen = chosen.iter().map(|letter| letter.id).collect();
    replay_lines(db, &lines, chosen, correction, args.dry_run, &args.common, kafka).await
}

async fn discard(db: &mut PgConnection, args: &DiscardArgs, kafka: &KafkaArgs) -> anyhow::Result<bool> {
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
    let left = rows::waiting(db, &lines_of(&letters).into_iter().collect::<Vec<Line>>()).await?;
    let lines: BTreeSet<Line> = left.into_keys().collect();
    if lines.is_empty() {
        return Ok(well);
    }
    let replayed =
        replay_lines(db, &lines, HashSet::new(), Correction::default(), false, &args.common, kafka).await?;
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
    let settings =
        PublisherSettings { delivery_timeout: DELIVERY_TIMEOUT, queue_kib: QUEUE_KIB, ..PublisherSettings::default() };
    let connect = || Publisher::connect(kafka, &settings, "order-consumer-dead-letters");
    let mut replay = Replay {
        db,
        publisher: if dry_run { None } else { Some(connect()?) },
        prefix: &kafka.topic_prefix,
        actor: &common.actor(),
        chosen,
        correction,
        patience: (!common.no_wait).then_some(common.wait),
        teller: Teller::on_stderr(),
        tally: Tally::default(),
    };
    if dry_run {
        return replay.rehearse(lines).await.map(|()| true);
    }
    let done = replay.run(lines).await;
    replay.teller.finish();
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
        bail!("the value in {} has more than {MAX_VALUE_BYTES} bytes, the most that stages read", path.display());
    }
    Ok(value)
}

impl Common {
    fn actor(&self) -> String {
        let actor = self.actor.clone().unwrap_or_else(|| format!("{}@{}", user(), host()));
        let actor = cleaned(&actor, MAX_ACTOR_CHARS);
        if actor.is_empty() { "unknown".to_owned() } else { actor }
    }
}

fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned())
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

fn reason(text: &str) -> Result<String, &'static str> {
    let reason = cleaned(text, MAX_REASON_CHARS);
    if reason.is_empty() { Err("say why") } else { Ok(reason) }
}
