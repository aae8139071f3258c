//! Reads what waits, line by line.

use std::collections::HashMap;

use anyhow::Context;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{Line, Waiting, state};

/// What waits in each line, in the order in which the stage met it. Lines where nothing waits are absent.
pub(in crate::dead_letters) async fn waiting(
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
