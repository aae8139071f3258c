//! Puts letters back onto the topics they came from and waits until their stages have met them.
//!
//! Safe to repeat and to interrupt anywhere. A letter is marked `replaying` and committed before its record leaves, so
//! one that a crash left behind is just published again; and its stage applies a record only while its letter is
//! `replaying`, so a second copy changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use producers::publisher::{PublishError, Publisher, Record};
use schemas::TopicPrefix;
use sqlx::PgConnection;

use super::filter::State;
use super::line::{Next, next};
use super::record::{Correction, Replayed, prepare};
use super::rows::{self, Content, Deed, Line, Waiting};
use super::text::{print, safe};
use crate::indicator::Indicator;

/// Lines worked on together: enough that waiting for a stage is shared, few enough to show progress.
const LINES_PER_PAGE: usize = 512;
/// Records in memory at once, each up to the broker's limit of about a mebibyte.
const RECORDS_PER_READ: usize = 64;
/// How often it is asked whether a stage has met a letter.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Replays lines.
pub(super) struct Replay<'a> {
    pub(super) db: &'a mut PgConnection,
    /// Absent in a rehearsal.
    pub(super) publisher: Option<Publisher>,
    pub(super) prefix: &'a TopicPrefix,
    pub(super) actor: &'a str,
    /// Letters that were chosen although they are open.
    pub(super) chosen: HashSet<i64>,
    pub(super) correction: Correction,
    /// How long nothing may settle before it is given up. `None`: do not wait at all.
    pub(super) patience: Option<Duration>,
    pub(super) indicator: Indicator,
    pub(super) tally: Tally,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Applied.
    pub(super) replayed: usize,
    /// Rejected again, by a stage or because this build cannot read them either.
    pub(super) rejected: usize,
    /// Not settled, and what stands behind them or behind rejected ones.
    pub(super) waiting: usize,
    /// Of those, what could not be published.
    pub(super) unpublished: usize,
}

/// What became of one letter of a round.
enum Fate {
    Settled,
    Rejected,
    Waiting,
}

impl Tally {
    pub(super) fn summary(self) -> String {
        format!("replayed={} rejected={} waiting={}\n", self.replayed, self.rejected, self.waiting)
    }

    /// Whether all of it was done; when nobody `waited`, whether all of it is on its way.
    pub(super) fn is_clean(self, waited: bool) -> bool {
        self.rejected == 0 && if waited { self.waiting == 0 } else { self.unpublished == 0 }
    }
}

impl Replay<'_> {
    /// Replays `lines` as far as they go.
    pub(super) async fn run(&mut self, lines: &BTreeSet<Line>) -> anyhow::Result<()> {
        let lines: Vec<Line> = lines.iter().cloned().collect();
        for page in lines.chunks(LINES_PER_PAGE) {
            self.page(page).await?;
        }
        self.indicator.finish();
        Ok(())
    }

    /// Says what [`Self::run`] would publish where, if stages applied everything that can be read.
    pub(super) async fn rehearse(&mut self, lines: &BTreeSet<Line>) -> anyhow::Result<()> {
        let lines: Vec<Line> = lines.iter().cloned().collect();
        for page in lines.chunks(RECORDS_PER_READ) {
            let waiting = rows::waiting(self.db, page).await?;
            for letters in page.iter().filter_map(|line| waiting.get(line)) {
                self.rehearse_line(letters).await?;
            }
        }
        Ok(())
    }

    async fn rehearse_line(&mut self, letters: &[Waiting]) -> anyhow::Result<()> {
        let mut stopped = false;
        for (number, letter) in letters.iter().enumerate() {
            stopped |= matches!(next(&letters[number..], &self.chosen), Next::Blocked(_));
            let content = rows::contents(self.db, &[letter.id])
                .await?
                .remove(&letter.id)
                .context("the letter is gone")?;
            let place = place(&content);
            if stopped {
                self.tell("waits", &format!("{place}: {}", letter.code))?;
                continue;
            }
            let correction = self.correction_of(letter.id);
            match prepare(content, &correction, self.prefix) {
                Ok(record) => {
                    let (key, bytes) = (String::from_utf8_lossy(&record.key), record.value.len());
                    self.tell(
                        "publish",
                        &format!("{place}: to {}, key {key}, {bytes} bytes", record.topic),
                    )?;
                }
                Err(why) => {
                    stopped = true;
                    self.tell("rejected", &format!("{place}: {why}"))?;
                }
            }
        }
        Ok(())
    }

    /// Round after round, one letter of each line at a time.
    async fn page(&mut self, page: &[Line]) -> anyhow::Result<()> {
        let mut moving: Vec<Line> = page.to_vec();
        let mut rejected = HashSet::new();
        while !moving.is_empty() {
            let waiting = rows::waiting(self.db, &moving).await?;
            let mut round = BTreeMap::new();
            for line in moving.drain(..) {
                match next(waiting.get(&line).map_or(&[][..], Vec::as_slice), &self.chosen) {
                    Next::Replay(id) => {
                        round.insert(id, line);
                    }
                    Next::Blocked(by) => self.indicator.say(&format!(
                        "{by} is open and was not chosen: what waits behind it stays"
                    )),
                    Next::Done => {}
                }
            }
            let ids: Vec<i64> = round.keys().copied().collect();
            for (id, fate) in self.round(&ids).await? {
                match (fate, round.remove(&id)) {
                    (Fate::Settled, Some(line)) => moving.push(line),
                    (Fate::Rejected, _) => {
                        rejected.insert(id);
                    }
                    (Fate::Waiting | Fate::Settled, _) => {}
                }
            }
        }
        let left = rows::waiting(self.db, page).await?;
        self.tally.rejected += rejected.len();
        self.tally.waiting +=
            left.values().flatten().filter(|letter| !rejected.contains(&letter.id)).count();
        Ok(())
    }

    /// Publishes letters and waits for what becomes of them.
    async fn round(&mut self, ids: &[i64]) -> anyhow::Result<HashMap<i64, Fate>> {
        let mut fates = HashMap::new();
        let mut on_their_way = BTreeMap::new();
        for part in ids.chunks(RECORDS_PER_READ) {
            self.publish(part, &mut fates, &mut on_their_way).await?;
        }
        match self.patience {
            Some(patience) => self.settle(on_their_way, patience, &mut fates).await?,
            None => {
                for (id, place) in on_their_way {
                    self.tell("published", &place)?;
                    fates.insert(id, Fate::Waiting);
                }
            }
        }
        Ok(fates)
    }

    async fn publish(
        &mut self,
        ids: &[i64],
        fates: &mut HashMap<i64, Fate>,
        on_their_way: &mut BTreeMap<i64, String>,
    ) -> anyhow::Result<()> {
        let mut records = BTreeMap::new();
        for (id, content) in rows::contents(self.db, ids).await? {
            let place = place(&content);
            match prepare(content, &self.correction_of(id), self.prefix) {
                Ok(record) => {
                    records.insert(id, (place, record));
                }
                Err(why) => {
                    self.tell("rejected", &format!("{place}: {why}; not published"))?;
                    fates.insert(id, Fate::Rejected);
                }
            }
        }
        let (edited, plain): (Vec<i64>, Vec<i64>) =
            records.keys().partition(|id| !self.correction_of(**id).is_none());
        let mut claimed = Vec::new();
        for (ids, action) in [(plain, "replay"), (edited, "replay-edited")] {
            if !ids.is_empty() {
                claimed
                    .extend(rows::claim(self.db, &ids, Deed { action, actor: self.actor }).await?);
            }
        }
        // Someone else settled the rest between our looking and our claiming.
        fates.extend(
            ids.iter()
                .filter(|id| records.contains_key(id) && !claimed.contains(id))
                .map(|id| (*id, Fate::Settled)),
        );
        records.retain(|id, _| claimed.contains(id));
        let failed = self.hand_over(&records).await;
        for (id, (place, _)) in records {
            match failed.get(&id) {
                None => {
                    on_their_way.insert(id, place);
                }
                Some(error) => {
                    self.tally.unpublished += 1;
                    self.tell(
                        "waiting",
                        &format!("{place}: {error}; the same command publishes it again"),
                    )?;
                    fates.insert(id, Fate::Waiting);
                }
            }
        }
        Ok(())
    }

    /// Answers the letters whose record is not known to be on its topic.
    async fn hand_over(
        &self,
        records: &BTreeMap<i64, (String, Replayed)>,
    ) -> HashMap<i64, PublishError> {
        let mut failed = HashMap::new();
        let Some(publisher) = &self.publisher else { return failed };
        let mut batch = publisher.batch();
        let mut taken = Vec::with_capacity(records.len());
        for (id, (_, record)) in records {
            let headers: Vec<(&str, Option<&[u8]>)> = record
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect();
            let added = batch.add(&Record {
                topic: &record.topic,
                key: Some(&record.key),
                value: Some(&record.value),
                headers: &headers,
            });
            match added {
                Ok(()) => taken.push(*id),
                Err(error) => {
                    failed.insert(*id, error);
                }
            }
        }
        if let Err(unknown) = batch.acknowledged().await {
            failed.extend(
                unknown
                    .into_iter()
                    .filter_map(|(number, error)| Some((*taken.get(number)?, error))),
            );
        }
        failed
    }

    /// Waits until no letter is on its way any more, or none has settled for as long as `patience`.
    async fn settle(
        &mut self,
        mut on_their_way: BTreeMap<i64, String>,
        patience: Duration,
        fates: &mut HashMap<i64, Fate>,
    ) -> anyhow::Result<()> {
        let mut last_settled = Instant::now();
        while !on_their_way.is_empty() {
            let ids: Vec<i64> = on_their_way.keys().copied().collect();
            for (id, (state, reason)) in rows::states(self.db, &ids).await? {
                let Some(place) =
                    (state != State::Replaying).then(|| on_their_way.remove(&id)).flatten()
                else {
                    continue;
                };
                last_settled = Instant::now();
                if state == State::Open {
                    self.tell("rejected", &format!("{place}: {reason}"))?;
                    fates.insert(id, Fate::Rejected);
                    continue;
                }
                self.tally.replayed += usize::from(state == State::Replayed);
                self.tell(state.as_str(), &place)?;
                fates.insert(id, Fate::Settled);
            }
            if on_their_way.is_empty() {
                break;
            }
            if last_settled.elapsed() >= patience {
                for (id, place) in on_their_way {
                    self.tell(
                        "waiting",
                        &format!("{place}: published; its stage has not met it, does it run?"),
                    )?;
                    fates.insert(id, Fate::Waiting);
                }
                break;
            }
            self.indicator.progress(&format!(
                "{} replayed, waiting for {} on their way",
                self.tally.replayed,
                on_their_way.len()
            ));
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// A correction is for the one letter that was chosen.
    fn correction_of(&self, id: i64) -> Correction {
        if self.chosen.contains(&id) { self.correction.clone() } else { Correction::default() }
    }

    fn tell(&self, what: &str, about: &str) -> anyhow::Result<()> {
        let line = format!("{what:<9} {}\n", safe(about));
        Ok(self.indicator.aside(|| print(line.as_bytes()))?)
    }
}

fn place(content: &Content) -> String {
    let Content { id, stage, topic, partition, offset, .. } = content;
    format!("{id} ({stage}, {topic}[{partition}]@{offset})")
}
