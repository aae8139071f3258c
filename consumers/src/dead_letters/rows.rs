//! Every SQL statement of this tool. Functions decide nothing; only `deeds` writes.

use anyhow::{Context, anyhow};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::filter::State;

/// The order in which a stage met the records of one order: one transaction sets aside records of one partition.
/// Ids do not tell, a batch may number its parked records after later ones.
macro_rules! met {
    ($letter:literal) => {
        concat!(
            "(",
            $letter,
            ".created_at, ",
            $letter,
            ".record_offset, ",
            $letter,
            ".dead_letter_id)"
        )
    };
}

/// As [`schemas::Timestamp`] counts.
macro_rules! micros {
    ($column:literal) => {
        concat!("(extract(epoch from ", $column, ") * 1000000)::bigint")
    };
}

mod letters;
mod lines;
mod deeds;

pub(super) use self::deeds::{claim, discard};
pub(super) use self::letters::{actions, by_ids, contents, elsewhere, list, states};
pub(super) use self::lines::waiting;

/// A dead letter, without its record.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) id: i64,
    pub(super) stage: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) record_micros: Option<i64>,
    pub(super) order_id: Option<Uuid>,
    pub(super) event_id: Option<Uuid>,
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) state: State,
    pub(super) attempts: i32,
    pub(super) created_micros: i64,
    pub(super) updated_micros: i64,
    /// How many letters of its order wait behind it at its stage.
    pub(super) behind: i64,
}

/// A record as it was set aside.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) id: i64,
    pub(super) stage: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Something a person did.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) action: String,
    pub(super) actor: String,
    pub(super) taken_micros: i64,
}

/// Letters that are applied one after the other: those of an order at a stage, or one that belongs to no order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Line {
    Order { stage: String, order: Uuid },
    Alone(i64),
}

/// A letter in its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) id: i64,
    pub(super) state: State,
    pub(super) code: String,
}

/// Who does what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed<'a> {
    pub(super) action: &'a str,
    pub(super) actor: &'a str,
}

/// Connects; a transaction that this process leaves open is ended by the server.
pub(super) async fn connect(options: PgConnectOptions) -> anyhow::Result<PgConnection> {
    let options =
        options.options([("idle_in_transaction_session_timeout", "30s"), ("lock_timeout", "30s")]);
    PgConnection::connect_with(&options).await.context("connecting to Postgres")
}

fn state(text: &str) -> anyhow::Result<State> {
    State::parse(text)
        .ok_or_else(|| anyhow!("dead_letters.state holds {text:?}, which this build does not know"))
}
