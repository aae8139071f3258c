//! The exporter against a real broker, by a clock of the test's own. Each test has topics and groups under a name of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use producers::kafka::KafkaArgs;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use stack::Stack;
use uuid::Uuid;

use super::history::History;
use super::picture::{Behind, GroupPicture, Picture};
use super::progress::Progress;
use super::refresh::Observer;
use super::staged::Staged;
use super::{LagExporterArgs, observe, observer};
use crate::test_database::TestDatabase;

mod secured;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    args: LagExporterArgs,
}

struct World {
    name: String,
    staged: Staged,
    observer: Observer,
    /// Milliseconds; the clock of records and refreshes.
    now: i64,
}

impl World {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(progress: Option<Progress>) -> Self {
        let state = std::env::var("ORDER_STACK_STATE_DIR")
            .expect("this test needs servers: run `make test`, or set ORDER_STACK_STATE_DIR to the state of a running order-stack");
        let attached = tokio::task::spawn_blocking(move || Stack::attach(state)).await.unwrap();
        Self::on(&attached.unwrap().kafka_brokers().unwrap(), &[], progress)
    }

    /// On `brokers`, reached as `more` arguments say.
    fn on(brokers: &str, more: &[&str], progress: Option<Progress>) -> Self {
        let name = format!("lag-{}.", &Uuid::new_v4().simple().to_string()[..10]);
        let whole = format!("{}.*", regex::escape(&name));
        let words = ["x", "--kafka-brokers", brokers, "--topic-prefix", &name, "--groups", &whole];
        let words = words.into_iter().chain(["--topics", &whole]).chain(more.iter().copied());
        let cli = Cli::parse_from(words);
        let config = cli.kafka.client_config("order-consumer-test").unwrap();
        Self {
            staged: Staged::on(&config).unwrap(),
            observer: observer(&cli.args, &cli.kafka, progress).unwrap(),
            name,
            // Brokers refuse records from the future, and these tests go forward.
            now: observe::now_ms() - 86_400_000,
        }
    }

    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.name)
    }

    async fn topic(&self, name: &str, partitions: i32) -> String {
        let topic = self.named(name);
        self.staged.create(&topic, partitions).await.unwrap();
        topic
    }

    /// One record a second, the last one just now.
    async fn write(&self, topic: &str, partition: i32, count: i64) {
        let times = (0..count).map(|n| self.now - 1_000 * (count - 1 - n));
        self.staged.write(topic, partition, times).await.unwrap();
    }

    async fn commit(&self, group: &str, topic: &str, offset: i64) {
        self.staged.commit(&[group.to_owned()], topic, |_, _| offset, 1).await.unwrap();
    }

    async fn look(&mut self) -> Picture {
        let refreshed = self.observer.refresh(self.now).await;
        assert_eq!(refreshed.cluster_failures, Vec::<String>::new());
        assert_eq!(refreshed.database_failure, None);
        refreshed.picture.unwrap()
    }

    /// Looks until it sees what the cluster will come to.
    async fn look_until(&mut self, is_there: impl Fn(&Picture) -> bool) -> Picture {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let refreshed = self.observer.refresh(self.now).await;
            let picture = refreshed.picture.unwrap();
            if is_there(&picture) {
                return picture;
            }
            assert!(Instant::now() < deadline, "seen last: {picture:#?}");
        }
    }
}

fn group<'a>(picture: &'a Picture, name: &str) -> Option<&'a GroupPicture> {
    picture.groups.iter().find(|group| &*group.name == name)
}

fn behind<'a>(picture: &'a Picture, name: &str, topic: &str) -> Option<&'a Behind> {
    let reading = group(picture, name)?.topics.iter().find(|reading| &*reading.topic == topic)?;
    reading.partitions.iter().find(|behind| behind.partition == 0)
}

fn lag_of(picture: &Picture, name: &str, topic: &str) -> (i64, Option<f64>) {
    let behind = behind(picture, name, topic).unwrap_or_else(|| panic!("{picture:#?}"));
    (behind.lag, behind.seconds)
}

#[tokio::test]
async fn a_drained_group_is_zero_behind_however_long_nothing_happens() {
    let mut world = World::new().await;
    let (topic, group) = (world.topic("t", 1).await, world.named("g"));
    world.write(&topic, 0, 10).await;
    world.commit(&group, &topic, 10).await;

    for _ in 0..2 {
        assert_eq!(lag_of(&world.look().await, &group, &topic), (0, Some(0.0)));
        world.now += 3_600_000;
    }

    world.write(&topic, 0, 1).await;
    world.now += 2_000;
    assert_eq!(lag_of(&world.look().await, &group, &topic), (1, Some(2.0)), "not an hour");
}

#[tokio::test]
async fn a_dead_group_falls_behind_in_records_and_in_seconds() {
    let mut world = World::new().await;
    let (topic, group) = (world.topic("t", 1).await, world.named("g"));
    world.observer.history = History::new(60.0, 0.001);
    world.write(&topic, 0, 10).await;
    world.commit(&group, &topic, 4).await;
    let picture = world.look().await;
    assert_eq!(lag_of(&picture, &group, &topic), (6, Some(5.0)));
    let status = super::tests::group(&picture, &group).unwrap().status.clone().unwrap();
    assert_eq!((status.kind, status.state, status.members), ("classic", "Empty", Some(0)));

    world.now += 60_000;
    world.write(&topic, 0, 5).await;

    let picture = world.look().await;
    assert_eq!(lag_of(&picture, &group, &topic), (11, Some(65.0)));
    let reading = &super::tests::group(&picture, &group).unwrap().topics[0];
    assert!(reading.partitions[0].stuck && reading.stuck() == 1);
    assert!(reading.growth.unwrap() > 0.0, "{reading:?}");
    assert_eq!(reading.drain_seconds, None);

    world.commit(&group, &topic, 14).await;
    let picture = world.look().await;
    let reading = &super::tests::group(&picture, &group).unwrap().topics[0];
    assert!(!reading.partitions[0].stuck);
    assert!(reading.drain_seconds.unwrap() > 0.0, "{reading:?}");
}

#[tokio::test]
async fn a_topic_that_is_deleted_takes_its_series_along_and_comes_back_without_a_past() {
    let mut world = World::new().await;
    let (topic, group) = (world.topic("t", 1).await, world.named("g"));
    world.write(&topic, 0, 10).await;
    world.commit(&group, &topic, 4).await;
    world.look().await;

    world.staged.delete(&topic).await.unwrap();
    let gone = world.look_until(|picture| picture.topics.is_empty()).await;
    assert_eq!(behind(&gone, &group, &topic), None);

    world.now += 100_000;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = world.staged.create(&topic, 1).await {
        assert!(Instant::now() < deadline, "{error:#}");
    }
    world.write(&topic, 0, 6).await;
    world.commit(&group, &topic, 4).await;
    let anew = world.look_until(|picture| behind(picture, &group, &topic).is_some()).await;
    assert_eq!(lag_of(&anew, &group, &topic), (2, Some(1.0)));
    world.commit(&group, &topic, 900).await;
    let beyond = world.look().await;
    assert_eq!(lag_of(&beyond, &group, &topic), (6, Some(5.0)), "of another log: all waits");
}

#[tokio::test]
async fn what_retention_removed_is_lost_and_the_rest_still_waits() {
    let mut world = World::new().await;
    let (topic, group) = (world.topic("t", 1).await, world.named("g"));
    world.write(&topic, 0, 10).await;
    world.commit(&group, &topic, 2).await;
    let before = world.look().await;
    assert_eq!(
        (behind(&before, &group, &topic).unwrap().lost, lag_of(&before, &group, &topic).0),
        (0, 8)
    );

    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(7)).unwrap();
    let options = rdkafka::admin::AdminOptions::new().operation_timeout(Some(PATIENCE));
    world.staged.admin.delete_records(&offsets, &options).await.unwrap();

    let after = world.look().await;
    let behind = behind(&after, &group, &topic).unwrap();
    assert_eq!((behind.lag, behind.seconds, behind.lost, behind.margin), (3, Some(2.0), 5, 0));
}

#[tokio::test]
async fn aborted_transactions_and_markers_are_not_waited_for() {
    let mut world = World::new().await;
    let (topic, group) = (world.topic("t", 1).await, world.named("g"));
    let mut config = world.staged.config.clone();
    config.set("transactional.id", world.named("tx"));
    let producer: FutureProducer = config.create().unwrap();
    let now = world.now;
    let transaction = async |ago_ms: i64, commit: bool| {
        let producer = producer.clone();
        let topic = topic.clone();
        producer.begin_transaction().unwrap();
        let record: FutureRecord<'_, (), str> =
            FutureRecord::to(&topic).partition(0).timestamp(now - ago_ms).payload("x");
        producer.send(record, PATIENCE).await.unwrap();
        tokio::task::spawn_blocking(move || match commit {
            true => producer.commit_transaction(PATIENCE).unwrap(),
            false => producer.abort_transaction(PATIENCE).unwrap(),
        })
        .await
        .unwrap();
    };
    let first = producer.clone();
    tokio::task::spawn_blocking(move || first.init_transactions(PATIENCE)).await.unwrap().unwrap();
    transaction(50_000, true).await; // offsets 0 and 1
    transaction(40_000, false).await; // 2 and 3
    world.commit(&group, &topic, 1).await;
    assert_eq!(lag_of(&world.look().await, &group, &topic), (0, Some(0.0)), "nothing to be read");

    transaction(30_000, true).await; // 4 and 5
    assert_eq!(lag_of(&world.look().await, &group, &topic), (5, Some(30.0)), "not 40");

    world.commit(&group, &topic, 6).await;
    producer.begin_transaction().unwrap();
    let record: FutureRecord<'_, (), str> =
        FutureRecord::to(&topic).partition(0).timestamp(now - 20_000).payload("x");
    producer.send(record, PATIENCE).await.unwrap();
    assert_eq!(lag_of(&world.look().await, &group, &topic), (1, Some(20.0)), "open: it waits");
    let last = producer.clone();
    tokio::task::spawn_blocking(move || last.abort_transaction(PATIENCE)).await.unwrap().unwrap();
    assert_eq!(lag_of(&world.look().await, &group, &topic), (0, Some(0.0)), "it came to nothing");
}

#[tokio::test]
async fn members_are_counted_and_what_nobody_committed_has_no_lag() {
    let mut world = World::new().await;
    let topic = world.topic("t", 1).await;
    world.write(&topic, 0, 3).await;
    let mut members = BTreeMap::new();
    for protocol in ["classic", "consumer"] {
        let name = world.named(protocol);
        let mut config: ClientConfig = world.staged.config.clone();
        config
            .set("group.id", &name)
            .set("group.protocol", protocol)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        let member: BaseConsumer = config.create().unwrap();
        member.subscribe(&[&topic]).unwrap();
        let member = Arc::new(member);
        let reading = Arc::clone(&member);
        let read = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                if let Some(message) = reading.poll(Duration::from_millis(100)) {
                    return message.map(|message| rdkafka::Message::offset(&message));
                }
            }
            panic!("no record came");
        });
        assert_eq!(read.await.unwrap().unwrap(), 0);
        members.insert(protocol, (name, member));
    }

    let picture = world.look().await;

    for (protocol, (name, _)) in &members {
        let found = group(&picture, name).unwrap_or_else(|| panic!("{name}: {picture:#?}"));
        let status = found.status.clone().unwrap();
        assert_eq!((status.kind, status.state, status.members), (*protocol, "Stable", Some(1)));
        assert_eq!(found.topics, Vec::new(), "nothing is committed");
    }
    for (name, member) in members.values() {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&topic, 0, Offset::Offset(1)).unwrap();
        let committing = Arc::clone(member);
        let committed = move || committing.commit(&offsets, CommitMode::Sync);
        tokio::task::spawn_blocking(committed).await.unwrap().unwrap();
        assert_eq!(lag_of(&world.look().await, name, &topic), (2, Some(1.0)));
    }
    tokio::task::spawn_blocking(move || drop(members)).await.unwrap();
}

#[tokio::test]
async fn two_hundred_groups_cost_a_bounded_number_of_requests() {
    let mut world = World::new().await;
    let topic = world.topic("t", 5).await;
    for partition in 0..5 {
        world.write(&topic, partition, 300).await;
    }
    let groups: Vec<String> = (0..200).map(|number| world.named(&format!("g{number}"))).collect();
    let offset = |group: usize, _| i64::try_from(group).unwrap();
    world.staged.commit(&groups, &topic, offset, 5).await.unwrap();

    let refreshed = world.observer.refresh(world.now).await;

    let picture = refreshed.picture.unwrap();
    assert_eq!(picture.groups.len(), 200);
    for (number, name) in groups.iter().enumerate() {
        let number = i64::try_from(number).unwrap();
        let reading = &group(&picture, name).unwrap().topics[0];
        assert_eq!(reading.lag_sum(), Some(5 * (300 - number)), "{name}");
        let seconds = reading.seconds_max().unwrap();
        assert!((seconds - (299 - number) as f64).abs() <= 0.01, "{name}: {seconds}");
    }
    // Connections, topics, groups, members, offsets, bounds; and reads of sixteen positions of each partition.
    assert!(refreshed.requests <= 64, "{} requests", refreshed.requests);
    let again = world.observer.refresh(world.now).await;
    assert!(again.requests < refreshed.requests + 20, "{} requests", again.requests);
}

#[tokio::test]
async fn groups_beyond_the_limit_are_left_out_and_counted() {
    let mut world = World::new().await;
    let topic = world.topic("t", 2).await;
    let groups = [world.named("a"), world.named("b"), world.named("c")];
    world.staged.commit(&groups, &topic, |_, _| 0, 2).await.unwrap();
    world.observer.most_positions = 4;

    let refreshed = world.observer.refresh(world.now).await;

    let picture = refreshed.picture.unwrap();
    assert_eq!((picture.groups.len(), refreshed.left_out), (2, 1));
    assert_eq!(group(&picture, &groups[2]), None);
}

#[tokio::test]
async fn of_our_stages_postgres_knows_the_truth_and_shows_where_kafka_disagrees() {
    let database = TestDatabase::create().await;
    let mut world = World::with(Some(Progress::new(database.options.clone()))).await;
    let (topic, group) = (world.topic("orders", 1).await, world.named("orders.payment"));
    world.write(&topic, 0, 10).await;
    world.commit(&group, &topic, 4).await;
    let mut db = database.connect().await;
    for (stage, offset) in [("payment", 7_i64), ("shipping", 9)] {
        sqlx::query("insert into stage_progress values ($1, $2, 0, $3, 1, 'test')")
            .bind(stage)
            .bind(&topic)
            .bind(offset)
            .execute(&mut db)
            .await
            .unwrap();
    }

    let picture = world.look().await;

    assert_eq!(lag_of(&picture, &group, &topic), (3, Some(2.0)));
    assert_eq!(behind(&picture, &group, &topic).unwrap().committed, Some(4));
    let shipping = world.named("orders.shipping");
    assert_eq!(lag_of(&picture, &shipping, &topic), (1, Some(0.0)), "Kafka never heard of it");
    let stages: Vec<(&str, i64, Option<i64>)> = picture
        .stages
        .iter()
        .map(|position| (&*position.stage, position.offset, position.ahead))
        .collect();
    assert_eq!(stages, [("payment", 7, Some(3)), ("shipping", 9, None)]);
    drop(db);
    drop(world);
    database.drop_it().await;
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_no_picture_and_a_failure() {
    let port = stack::free_ports(1).unwrap()[0];
    let cli = Cli::parse_from(["x", "--kafka-brokers", &format!("127.0.0.1:{port}")]);
    let mut observer = observer(&cli.args, &cli.kafka, None).unwrap();

    let refreshed = observer.refresh(0).await;

    assert!(refreshed.picture.is_none());
    assert!(refreshed.cluster_failures[0].contains(&port.to_string()));
}
