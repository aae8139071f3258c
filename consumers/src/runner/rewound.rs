//! Notices a database that went back in time: restored from a backup, taken over by a copy that was behind, or short of a last
//! commit that nobody waited for. A stage with records to commit is fenced by that; one that has none would never find out,
//! and what the database forgot would stay forgotten while lag is said to be zero.

use std::collections::HashMap;
use std::sync::Arc;

use super::progress::Partition;
use crate::store::progress::{self, Claim};
use crate::store::session::Session;

/// How many of `partitions` stand in the database before what was committed there.
pub(crate) async fn rewound(
    db: &mut Session<'_>,
    stage: &str,
    partitions: &[Arc<Partition>],
) -> Result<usize, sqlx::Error> {
    // In this order: what moves in between has moved on, and is not taken for a step back.
    let known: Vec<Claim> = partitions.iter().map(|partition| partition.claim()).collect();
    let standing: HashMap<(String, i32), Claim> = progress::standing(db, stage)
        .await?
        .into_iter()
        .map(|claim| ((claim.topic.clone(), claim.partition), claim))
        .collect();
    let steps_back = known.into_iter().filter(|claim| {
        let there = standing.get(&(claim.topic.clone(), claim.partition));
        there.is_none_or(|there| is_before(there, claim))
    });
    Ok(steps_back.count())
}

/// A later epoch is another owner's, who knows where it stands.
fn is_before(there: &Claim, known: &Claim) -> bool {
    (there.epoch, there.next_offset) < (known.epoch, known.next_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(epoch: i64, next_offset: i64) -> Claim {
        Claim { topic: "orders".to_owned(), partition: 0, next_offset, epoch }
    }

    #[test]
    fn only_an_older_offset_or_an_older_owner_is_a_step_back() {
        let known = claim(3, 100);

        assert!(is_before(&claim(3, 99), &known));
        assert!(is_before(&claim(2, 200), &known));
        assert!(!is_before(&claim(3, 100), &known));
        assert!(!is_before(&claim(3, 101), &known), "committed since we looked");
        assert!(!is_before(&claim(4, 0), &known), "another owner's, after a person set it back");
    }
}
