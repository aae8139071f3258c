//! Writes what a person did: [`claim`] and [`discard`], each in a transaction of its own, noted with who did it.
//!
//! Locks are taken as stages take them: `parked_orders` first, then `dead_letters` by id.

use anyhow::Context;
use sqlx::{PgConnection, Row};

use super::Deed;

/// Marks letters as being replayed, and notes who did it. Answers those that still waited.
pub(in crate::dead_letters) async fn claim(
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
pub(in crate::dead_letters) async fn discard(
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
