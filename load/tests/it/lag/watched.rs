//! One stage with its two tellers of lag, and the truth from topic and table to compare them with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use load::eventually::eventually;
use load::pipeline::{Producer, Tables, free_addresses};
use load::process::{Process, Spec};
use load::records::Records;
use schemas::{Timestamp, Topic};
use sqlx::{Connection, PgConnection};

use crate::page::Page;
use crate::world::{SETUP, World, hasty, plain_orders, ready, run};

/// Of whatever a test waits for here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Often beside the second that is allowed, and little beside what a page costs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How far the two may be apart, and for how long; the second is what it takes either to hear of anything.
const APART_SECONDS: f64 = 1.0;

/// The projection, with room for a partition to be stuck alone, and who looks at it from outside. Reads the topic `orders`;
/// nobody writes the others.
pub(crate) struct Watched {
    pub(crate) world: World,
    pub(crate) producer: Producer,
    pub(crate) stage: Process,
    pub(crate) exporter: Process,
    pub(crate) group: String,
    /// Times that orders were placed: each time others.
    placed: AtomicU64,
}

/// What one teller says, by partition of the topic `orders`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) records: BTreeMap<i32, f64>,
    pub(crate) seconds: BTreeMap<i32, f64>,
}

impl Told {
    pub(crate) fn on(page: &Page, group: &str, topic: &str) -> Self {
        let of = |family: &str| {
            let found = page.find(family, &[("consumergroup", group), ("topic", topic)]);
            found.iter().map(|s| (s.label("partition").parse().unwrap(), s.value)).collect()
        };
        Self {
            records: of("kafka_consumergroup_lag"),
            seconds: of("kafka_consumergroup_lag_seconds"),
        }
    }

    pub(crate) fn sum(&self) -> f64 {
        self.records.values().sum()
    }

    pub(crate) fn longest(&self) -> f64 {
        self.seconds.values().copied().fold(0.0, f64::max)
    }

    /// Of every partition, and nothing waits.
    pub(crate) fn is_drained(&self) -> bool {
        let all = SETUP.partitions as usize;
        let nothing = |told: &BTreeMap<i32, f64>| {
            told.len() == all && told.values().all(|value| *value == 0.0)
        };
        nothing(&self.records) && nothing(&self.seconds)
    }

    /// Whether both say about the same of how long things wait. What one does not know must be young.
    fn agrees_with(&self, other: &Self) -> bool {
        let partitions = self.seconds.keys().chain(other.seconds.keys());
        partitions.into_iter().all(|partition| {
            let [one, two] = [self, other].map(|told| told.seconds.get(partition).copied());
            (one.unwrap_or(0.0) - two.unwrap_or(0.0)).abs() <= APART_SECONDS
        })
    }
}

impl Watched {
    /// The projection in a process of its own.
    pub(crate) async fn alone(name: &str) -> Self {
        Self::beside(name, &[]).await
    }

    /// The projection in one process with `others`, so that the process goes on when it stops.
    pub(crate) async fn beside(name: &str, others: &[&str]) -> Self {
        Self::on(World::new(name, SETUP).await, others).await
    }

    pub(crate) async fn on(world: World, others: &[&str]) -> Self {
        let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
        let stages: Vec<&str> = ["order"].iter().chain(others).copied().collect();
        // A lane per partition: one that is stuck holds up no other.
        let lanes = |spec: Spec| hasty(spec).arguments(["--lanes", "4"]);
        let stage = world.pipeline.start_stages("watched", &stages, lanes).await.unwrap();
        let exporter = exporter(&world, "lag-exporter").await;
        let group = world.pipeline.prefix().group("order");
        let watched = Self { world, producer, stage, exporter, group, placed: AtomicU64::new(0) };
        watched.expect_drained().await;
        watched
    }

    pub(crate) fn topic(&self) -> String {
        self.world.pipeline.prefix().topic(Topic::Orders)
    }

    /// Places `count` more orders.
    pub(crate) async fn place(&self, count: usize) {
        let times = self.placed.fetch_add(1, Ordering::Relaxed);
        let orders = plain_orders(count, 1_000 + times);
        self.producer.client.place_all(orders, &run(0), |_| ()).await.unwrap();
    }

    /// What the stage says; an error when it says nothing at all.
    pub(crate) async fn inside(&self) -> anyhow::Result<Told> {
        Ok(Told::on(&Page::of(self.stage.admin()).await?, &self.group, &self.topic()))
    }

    /// What the exporter says.
    pub(crate) async fn outside(&self) -> Told {
        Told::on(&self.outside_page().await, &self.group, &self.topic())
    }

    pub(crate) async fn outside_page(&self) -> Page {
        Page::of(self.exporter.admin()).await.unwrap()
    }

    /// Waits until the exporter says what `is_so`.
    pub(crate) async fn expect_outside(&self, what: &str, is_so: impl Fn(&Told) -> bool) -> Told {
        let waited = eventually(PATIENCE, what, async || {
            let told = self.outside().await;
            anyhow::ensure!(is_so(&told), "from outside: {told:?}");
            Ok(told)
        });
        waited.await.unwrap()
    }

    /// Waits until the stage says what `is_so`.
    pub(crate) async fn expect_inside(&self, what: &str, is_so: impl Fn(&Told) -> bool) -> Told {
        let waited = eventually(PATIENCE, what, async || {
            let told = self.inside().await?;
            anyhow::ensure!(is_so(&told), "from inside: {told:?}");
            Ok(told)
        });
        waited.await.unwrap()
    }

    /// Waits until the projection is where the topic ends, and both say so. Either may still tell of a time before something
    /// was written, so that their word alone does not prove that it was read.
    pub(crate) async fn expect_drained(&self) {
        let records = Records::of(&self.world.pipeline).unwrap();
        let read = eventually(PATIENCE, "everything is read", async || {
            let ends = records.offsets(Topic::Orders).await?;
            let mut tables = self.world.pipeline.tables().await?;
            let positions: i64 = progress(&mut tables, &self.topic()).await.values().sum();
            anyhow::ensure!(positions == ends, "{positions} of {ends} offsets");
            Ok(())
        });
        read.await.unwrap();
        self.expect_inside("the stage says that it has drained", Told::is_drained).await;
        self.expect_outside("the exporter says that it has drained", Told::is_drained).await;
    }

    /// Follows both until `end`: they are never apart for longer than a second. Returns the longest wait that both told.
    pub(crate) async fn agree_until(&self, mut end: impl AsyncFnMut(&Told, &Told) -> bool) -> f64 {
        let mut apart_since: Option<Instant> = None;
        let mut longest: f64 = 0.0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (inside, outside) = tokio::join!(self.inside(), self.outside());
            let inside = inside.unwrap();
            if inside.agrees_with(&outside) {
                apart_since = None;
                longest = longest.max(inside.longest().min(outside.longest()));
                if end(&inside, &outside).await {
                    return longest;
                }
            }
            let since = *apart_since.get_or_insert_with(Instant::now);
            assert!(
                inside.agrees_with(&outside) || since.elapsed().as_secs_f64() < APART_SECONDS,
                "apart for {:?}: {inside:?} {outside:?}",
                since.elapsed()
            );
            assert!(Instant::now() < deadline, "seen last: {inside:?} {outside:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The truth of this moment: how many records wait, and the age of the oldest.
    pub(crate) async fn truth(&self) -> (f64, f64) {
        let mut tables = self.world.pipeline.tables().await.unwrap();
        let progress = progress(&mut tables, &self.topic()).await;
        let records = Records::of(&self.world.pipeline).unwrap().read(Topic::Orders).await.unwrap();
        let waits = records.iter().filter(|record| record.offset >= progress[&record.partition]);
        let times: Vec<i64> = waits.map(|record| record.timestamp_ms.unwrap()).collect();
        let now_ms = Timestamp::now().as_micros() / 1000;
        let oldest = times.iter().min().map_or(0.0, |oldest| (now_ms - oldest) as f64 / 1000.0);
        (times.len() as f64, oldest)
    }

    /// From now on the projection cannot write; until the hold is dropped.
    pub(crate) async fn hold(&self) -> Hold {
        self.hold_by("lock table orders in exclusive mode").await
    }

    /// From now on `partition` cannot move.
    pub(crate) async fn hold_partition(&self, partition: i32) -> Hold {
        let topic = self.topic();
        self.hold_by(&format!(
            "select from stage_progress where stage = 'order' and topic = '{topic}' and partition = {partition} for update"
        ))
        .await
    }

    async fn hold_by(&self, statement: &str) -> Hold {
        let mut db = PgConnection::connect_with(self.world.pipeline.database()).await.unwrap();
        // The server would end the hold after ten seconds, as it ends those of frozen clients.
        let statement =
            format!("begin; set local idle_in_transaction_session_timeout = 0; {statement}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut db).await.unwrap();
        Hold(db)
    }
}

/// A lock in the database.
pub(crate) struct Hold(PgConnection);

impl Hold {
    pub(crate) async fn release(self) {
        self.0.close().await.unwrap();
    }
}

/// An exporter that looks at nothing but this world, often.
pub(crate) async fn exporter(world: &World, name: &str) -> Process {
    let [admin]: [SocketAddr; 1] = free_addresses().unwrap();
    let whole = format!("{}.*", world.pipeline.prefix().to_string().replace('.', "\\."));
    let spec = world.pipeline.lag_exporter(name, admin).arguments([
        "--groups",
        &whole,
        "--topics",
        &whole,
        "--interval-ms",
        "200",
        "--stuck-ms",
        "2000",
        "--stale-ms",
        "3000",
    ]);
    let mut exporter = Process::start(spec).unwrap();
    ready(&mut exporter).await;
    exporter
}

/// Where the projection is, by partition.
pub(crate) async fn progress(tables: &mut Tables, topic: &str) -> BTreeMap<i32, i64> {
    let query = format!(
        "select partition::text, next_offset::text from stage_progress where stage = 'order' and topic = '{topic}'"
    );
    let rows = tables.rows(&query).await.unwrap();
    let number = |cell: &Option<String>| cell.as_deref().unwrap().parse::<i64>().unwrap();
    rows.iter().map(|row| (i32::try_from(number(&row[0])).unwrap(), number(&row[1]))).collect()
}
