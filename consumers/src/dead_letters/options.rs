//! The command line of `dead-letters`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use producers::serve::duration;
use uuid::Uuid;

use super::filter::{Filter, State};
use super::text::cleaned;

/// Look at records that a stage set aside, replay them, or give them up
///
/// A stage sets a record aside that it can never apply, and with it every later event of the same order, which waits
/// ("parked") so that events are applied in order. Other orders go on. Nothing is lost: the bytes are kept, and a replay
/// puts them through the same stage again.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters ls                          what waits
  order-consumer dead-letters show 12                     one letter, with its record
  order-consumer dead-letters replay --stage payment      after the stage was fixed
  order-consumer dead-letters discard 12 --reason 'test data'")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum Command {
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
pub(super) struct LsArgs {
    #[command(flatten)]
    pub(super) filter: Filter,

    /// Only those in this state.
    #[arg(long, value_enum)]
    pub(super) state: Option<State>,

    /// Most letters to list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) limit: u32,

    /// One JSON object per letter.
    #[arg(long)]
    pub(super) json: bool,
}

/// Show one letter: its record, why it was set aside, what waits, what was done
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters show 12
  order-consumer dead-letters show 12 --raw > value.json        to correct it, see replay --value-file")]
pub(super) struct ShowArgs {
    /// Id of the letter.
    pub(super) id: i64,

    /// As one JSON object. Bytes that are not UTF-8 are given in hex.
    #[arg(long)]
    pub(super) json: bool,

    /// The bytes of the value and nothing else, exactly as they were sent.
    #[arg(long, conflicts_with = "json")]
    pub(super) raw: bool,
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
pub(super) struct ReplayArgs {
    /// Ids of letters.
    #[arg(value_name = "ID", conflicts_with_all = ["stage", "code", "order", "all"])]
    pub(super) ids: Vec<i64>,

    #[command(flatten)]
    pub(super) filter: Filter,

    /// Everything that waits.
    #[arg(long, conflicts_with_all = ["stage", "code", "order"])]
    pub(super) all: bool,

    /// Most letters to choose, oldest first; what waits behind them is not counted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,

    /// Say what would be published where, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Publish this value instead of the original one; "-" reads it from standard input. Noted as a correction.
    #[arg(long, value_name = "FILE")]
    pub(super) value_file: Option<PathBuf>,

    /// Publish under the key of this order instead of the original key. Noted as a correction.
    #[arg(long, value_name = "UUID")]
    pub(super) key: Option<Uuid>,

    #[command(flatten)]
    pub(super) common: Common,
}

/// Give letters up for good
///
/// Their records will never be applied at this stage. What waits behind them is sound and follows as in a replay,
/// unless --with-parked gives it up as well.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer dead-letters discard 12 --reason 'test data of the load run'
  order-consumer dead-letters discard 12 --with-parked --reason 'order refunded by hand, ticket 4711'")]
pub(super) struct DiscardArgs {
    /// Ids of letters.
    #[arg(value_name = "ID", required = true)]
    pub(super) ids: Vec<i64>,

    /// Why; kept with the letter.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(super) reason: String,

    /// Also give up the parked events behind them. Events behind them that were rejected themselves stay.
    #[arg(long)]
    pub(super) with_parked: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// How long to wait for a stage when none of the letters settles.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(super) wait: Duration,

    /// Publish the first letter of each order and leave; the rest follows when this command is run again.
    #[arg(long, conflicts_with = "wait")]
    pub(super) no_wait: bool,

    /// Who does this, for the record; user@host when absent.
    #[arg(long, value_name = "NAME")]
    pub(super) actor: Option<String>,
}

/// Longest reason and name that are kept.
const MAX_REASON_CHARS: usize = 300;
const MAX_ACTOR_CHARS: usize = 100;

impl Common {
    /// One line that names whoever does it.
    pub(super) fn actor(&self) -> String {
        let actor = self.actor.clone().unwrap_or_else(|| format!("{}@{}", user(), host()));
        let actor = cleaned(&actor, MAX_ACTOR_CHARS);
        if actor.is_empty() { "unknown".to_owned() } else { actor }
    }
}

fn user() -> String {
    std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| "unknown".to_owned())
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
