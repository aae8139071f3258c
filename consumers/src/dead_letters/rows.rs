//! Every SQL statement of this tool. Functions decide nothing; only [`claim`] and [`discard`] write, each in a
//! transaction of its own.
//!
//! Locks are taken as stages take them: `parked_orders` first, then `dead_letters` by id.

use std::collections::HashMap;

use anyhow::{Context, anyhow};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::filter::{Filter, State};

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

/// A statement that reads letters, as [`letter`] expects them.
macro_rules! select_letters {
    ($which:literal) => {
        concat!(
            "select letter.dead_letter_id, letter.stage, letter.topic, letter.partition, letter.record_offset, ",
            micros!("letter.record_time"),
            ", letter.order_id, letter.event_id, letter.code, letter.detail, letter.state, letter.attempts, ",
            micros!("letter.created_at"),
            ", ",
            micros!("letter.updated_at"),
            ", (select count(*) from dead_letters behind
                 where behind.stage = letter.stage and behind.order_id = letter.order_id
                   and behind.state in ('open', 'parked', 'replaying')
                   and ",
            met!("behind"),
            " > ",
            met!("letter"),
            ") from dead_letters letter ",
            $which
        )
    };
}

/// Connects; a transaction that this process leaves open is ended by the server.
pub(super) async fn connect(options: PgConnectOptions) -> anyhow::Result<PgConnection> {
    let options =
        options.options([("idle_in_transaction_session_timeout", "30s"), ("lock_timeout", "30s")]);
    PgConnection::connect_with(&options).await.context("connecting to Postgres")
}

/// Letters that match, oldest first.
pub(super) async fn list(
    db: &mut PgConnection,
    filter: &Filter,
    states: &[State],
    limit: i64,
) -> anyhow::Result<Vec<Letter>> {
    let rows = sqlx::query(select_letters!(
        "where ($1::text is null or letter.stage = $1)
              and ($2::text is null or letter.code = $2)
              and ($3::uuid is null or letter.order_id = $3)
              and letter.state = any($4)
            order by letter.dead_letter_id
            limit $5"
    ))
    .bind(&filter.stage)
    .bind(&filter.code)
    .bind(filter.order)
    .bind(names(states))
    .bind(limit)
    .fetch_all(db)
    .await
    .context("reading dead_letters; was the database migrated? order-consumer migrate")?;
    rows.iter().map(letter).collect()
}

/// The letters with these ids, those that exist.
pub(super) async fn by_ids(db: &mut PgConnection, ids: &[i64]) -> anyhow::Result<Vec<Letter>> {
    let rows = sqlx::query(select_letters!(
        "where letter.dead_letter_id = any($1) order by letter.dead_letter_id"
    ))
    .bind(ids)
    .fetch_all(db)
    .await
    .context("reading dead_letters; was the database migrated? order-consumer migrate")?;
    rows.iter().map(letter).collect()
}

/// Letters of the same record at other stages.
pub(super) async fn elsewhere(db: &mut PgConnection, of: &Letter) -> anyhow::Result<Vec<Letter>> {
    let rows = sqlx::query(select_letters!(
        "where letter.topic = $1 and letter.partition = $2 and letter.record_offset = $3
              and letter.dead_letter_id <> $4
            order by letter.dead_letter_id"
    ))
    .bind(&of.topic)
    .bind(of.partition)
    .bind(of.offset)
    .bind(of.id)
    .fetch_all(db)
    .await
    .context("looking for the same record at other stages")?;
    rows.iter().map(letter).collect()
}

/// The records of these letters.
pub(super) async fn contents(
    db: &mut PgConnection,
    ids: &[i64],
) -> anyhow::Result<HashMap<i64, Content>> {
    let rows = sqlx::query(
        "select dead_letter_id, stage, topic, partition, record_offset, record_key, record_value,
                header_names, header_values
           from dead_letters
          where dead_letter_id = any($1)",
    )
    .bind(ids)
    .fetch_all(db)
    .await
    .context("reading the records of dead letters")?;
    rows.iter()
        .map(|row| {
            let names: Vec<String> = row.try_get(7)?;
            let values: Vec<Option<Vec<u8>>> = row.try_get(8)?;
            let id = row.try_get(0)?;
            let content = Content {
                id,
                stage: row.try_get(1)?,
                topic: row.try_get(2)?,
                partition: row.try_get(3)?,
                offset: row.try_get(4)?,
                key: row.try_get(5)?,
                value: row.try_get(6)?,
                headers: names.into_iter().zip(values).collect(),
            };
            Ok((id, content))
        })
        .collect()
}

/// What was done about a letter, oldest first.
pub(super) async fn actions(db: &mut PgConnection, id: i64) -> anyhow::Result<Vec<Action>> {
    let rows = sqlx::query(concat!(
        "select action, actor, ",
        micros!("taken_at"),
        "
           from dead_letter_actions
          where dead_letter_id = $1
          order by action_id"
    ))
    .bind(id)
    .fetch_all(db)
    .await
    .context("reading dead_letter_actions")?;
    rows.iter()
        .map(|row| {
            Ok(Action {
                action: row.try_get(0)?,
                actor: row.try_get(1)?,
                taken_micros: row.try_get(2)?,
            })
        })
        .collect()
}

/// What waits in each line, in the order in which the stage met it. Lines where nothing waits are absent.
pub(super) async fn waiting(
    db: &mut PgConnection,
    lines: &[Line],
) -> anyhow::Result<HashMap<Line, Vec<Waiting>>> {
    let (mut stages, mut orders, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Order { stage, order } => {
                stages.push(stage.as_str());
                orders.push(*order);
            }
            Line::Alone(id) => alone.push(*id),
        }
    }
    let rows = sqlx::query(concat!(
        "with line as (
            select letter.* from unnest($1::text[], $2::uuid[]) as wanted (stage, order_id)
              join dead_letters letter on letter.stage = wanted.stage and letter.order_id = wanted.order_id
             where letter.state in ('open', 'parked', 'replaying')
             union all
            select * from dead_letters
             where dead_letter_id = any($3) and order_id is null and state in ('open', 'parked', 'replaying'))
         select dead_letter_id, stage, order_id, state, code from line order by ",
        met!("line")
    ))
    .bind(stages)
    .bind(orders)
    .bind(alone)
    .fetch_all(db)
    .await
    .context("reading what waits")?;
    let mut waiting: HashMap<Line, Vec<Waiting>> = HashMap::new();
    for row in rows {
        let id = row.try_get(0)?;
        let order: Option<Uuid> = row.try_get(2)?;
        let line = match order {
            Some(order) => Line::Order { stage: row.try_get(1)?, order },
            None => Line::Alone(id),
        };
        waiting.entry(line).or_default().push(Waiting {
            id,
            state: state(row.try_get(3)?)?,
            code: row.try_get(4)?,
        });
    }
    Ok(waiting)
}

/// Where each letter is now.
pub(super) async fn states(
    db: &mut PgConnection,
    ids: &[i64],
) -> anyhow::Result<HashMap<i64, (State, String)>> {
    let rows = sqlx::query("select dead_letter_id, state, code || ': ' || detail from dead_letters where dead_letter_id = any($1)")
        .bind(ids)
        .fetch_all(db)
        .await
        .context("asking what became of the replayed letters; running the same command again is safe")?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, (state(row.try_get(1)?)?, row.try_get(2)?))))
        .collect()
}

/// Marks letters as being replayed, and notes who did it. Answers those that still waited.
pub(super) async fn claim(
    db: &mut PgConnection,
    ids: &[i64],
    deed: Deed<'_>,
) -> anyhow::Result<Vec<i64>> {
    begin(db).await?;
    let rows = sqlx::query(
        "with claimed as (
            select dead_letter_id from dead_letters
             where dead_letter_id = any($1) and state in ('open', 'parked', 'replaying')
             order by dead_letter_id
               for update)
         update dead_letters
            set state = 'replaying', updated_at = now()
           from claimed
          where dead_letters.dead_letter_id = claimed.dead_letter_id
         returning dead_letters.dead_letter_id",
    )
    .bind(ids)
    .fetch_all(&mut *db)
    .await
    .context("marking letters as being replayed")?;
    let claimed: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    note(db, &claimed, deed).await?;
    commit(db).await?;
    Ok(claimed)
}

/// Gives letters up, and with `and_parked` the sound ones behind them; lets go of orders of which nothing waits any
/// more. Answers the letters given up.
pub(super) async fn discard(
    db: &mut PgConnection,
    ids: &[i64],
    and_parked: bool,
    deed: Deed<'_>,
) -> anyhow::Result<Vec<i64>> {
    begin(db).await?;
    // A stage that sets records of these orders aside holds these rows until it has committed: whatever it parked is
    // seen by the statements below, and nothing is parked behind an order that is let go here.
    sqlx::query(
        "select from parked_orders
          where (stage, order_id) in (select stage, order_id from dead_letters where dead_letter_id = any($1))
          order by stage, order_id
            for update",
    )
    .bind(ids)
    .execute(&mut *db)
    .await
    .context("locking the orders of the letters")?;
    let rows = sqlx::query(concat!(
        "with given_up as (
            select dead_letter_id from dead_letters other
             where state in ('open', 'parked', 'replaying')
               and (dead_letter_id = any($1)
                    or $2 and (state = 'parked' or code = 'parked') and exists (
                        select from dead_letters chosen
                         where chosen.dead_letter_id = any($1) and chosen.stage = other.stage
                           and chosen.order_id = other.order_id and ",
        met!("chosen"),
        " < ",
        met!("other"),
        "))
             order by dead_letter_id
               for update)
         update dead_letters
            set state = 'discarded', updated_at = now()
           from given_up
          where dead_letters.dead_letter_id = given_up.dead_letter_id
         returning dead_letters.dead_letter_id"
    ))
    .bind(ids)
    .bind(and_parked)
    .fetch_all(&mut *db)
    .await
    .context("giving letters up")?;
    let mut discarded: Vec<i64> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    discarded.sort_unstable();
    note(db, &discarded, deed).await?;
    sqlx::query(
        "delete from parked_orders
          where (stage, order_id) in (select stage, order_id from dead_letters where dead_letter_id = any($1))
            and not exists (
                select from dead_letters waiting
                 where waiting.stage = parked_orders.stage and waiting.order_id = parked_orders.order_id
                   and waiting.state in ('open', 'parked', 'replaying'))",
    )
    .bind(ids)
    .execute(&mut *db)
    .await
    .context("letting go of orders")?;
    commit(db).await?;
    Ok(discarded)
}

async fn note(db: &mut PgConnection, ids: &[i64], deed: Deed<'_>) -> anyhow::Result<()> {
    sqlx::query(
        "insert into dead_letter_actions (dead_letter_id, action, actor)
         select letter, $2, $3 from unnest($1::bigint[]) as letter",
    )
    .bind(ids)
    .bind(deed.action)
    .bind(deed.actor)
    .execute(db)
    .await
    .context("noting who did it")?;
    Ok(())
}

/// By hand: the connection ends with this process, so nothing has to roll back on drop.
async fn begin(db: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query("begin").execute(db).await.context("beginning a transaction")?;
    Ok(())
}

async fn commit(db: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query("commit").execute(db).await.context(
        "committing; whether it happened is not known, running the same command again is safe",
    )?;
    Ok(())
}

fn letter(row: &PgRow) -> anyhow::Result<Letter> {
    Ok(Letter {
        id: row.try_get(0)?,
        stage: row.try_get(1)?,
        topic: row.try_get(2)?,
        partition: row.try_get(3)?,
        offset: row.try_get(4)?,
        record_micros: row.try_get(5)?,
        order_id: row.try_get(6)?,
        event_id: row.try_get(7)?,
        code: row.try_get(8)?,
        detail: row.try_get(9)?,
        state: state(row.try_get(10)?)?,
        attempts: row.try_get(11)?,
        created_micros: row.try_get(12)?,
        updated_micros: row.try_get(13)?,
        behind: row.try_get(14)?,
    })
}

fn state(text: &str) -> anyhow::Result<State> {
    State::parse(text)
        .ok_or_else(|| anyhow!("dead_letters.state holds {text:?}, which this build does not know"))
}

fn names(states: &[State]) -> Vec<&'static str> {
    states.iter().map(|state| state.as_str()).collect()
}
