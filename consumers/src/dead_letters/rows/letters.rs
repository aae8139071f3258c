//! Reads letters, one by one or many: what they say, what they hold, what was done about them, where they are now.

use std::collections::HashMap;

use anyhow::Context;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{Action, Content, Letter, state};
use crate::dead_letters::filter::{Filter, State};

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

/// Letters that match, oldest first.
pub(in crate::dead_letters) async fn list(
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
pub(in crate::dead_letters) async fn by_ids(
    db: &mut PgConnection,
    ids: &[i64],
) -> anyhow::Result<Vec<Letter>> {
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
pub(in crate::dead_letters) async fn elsewhere(
    db: &mut PgConnection,
    of: &Letter,
) -> anyhow::Result<Vec<Letter>> {
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
pub(in crate::dead_letters) async fn contents(
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
pub(in crate::dead_letters) async fn actions(
    db: &mut PgConnection,
    id: i64,
) -> anyhow::Result<Vec<Action>> {
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

/// Where each letter is now.
pub(in crate::dead_letters) async fn states(
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

fn names(states: &[State]) -> Vec<&'static str> {
    states.iter().map(|state| state.as_str()).collect()
}
