//! A stage and the lag exporter about the same partitions, each with the truth to compare it with.
//!
//! | what happens                     | the stage says                         | the exporter says                      |
//! |----------------------------------|----------------------------------------|----------------------------------------|
//! | all is well, load, bursts        | the truth                              | the same, within a second              |
//! | drained                          | 0 and 0 s, for as long as it lasts     | the same                               |
//! | a record after an hour of that   | the age of this record                 | the same                               |
//! | the stage is killed              | nothing                                | the truth; no members                  |
//! | the stage is frozen              | nothing: it does not answer            | the truth; no members                  |
//! | one partition is stuck           | the truth; no progress of that one     | the truth; stuck: that one             |
//! | a record is poisoned             | 0: it is set aside, and one waits      | 0: reading goes on                     |
//! | a transaction is aborted         | 0 once it is over                      | the same                               |
//! | retention passes what is unread  | stops; lost records; no lag            | what is left, its age, and what is lost |
//! | the topic is made anew           | no lag: it knows nothing of this log   | all of the new log waits               |
//! | the broker is down               | nothing, once its session is over      | nothing but the date of its last look  |
//! | Postgres is down                 | the truth                              | the truth, by Kafka's offsets          |
//!
//! The last two need servers of their own: `tests/faults/lag.rs`.

use std::time::Duration;

use load::eventually::eventually;
use load::orders::Run;
use load::process::Signal;
use load::records::{Record, Records};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::{OrderId, Timestamp, Topic};

use super::watched::{PATIENCE, Told, Watched};
use crate::events::placed;
use crate::page::Page;
use crate::world::{SETUP, mixed_orders};

#[tokio::test]
async fn under_load_and_in_bursts_both_tell_the_same() {
    let watched = Watched::alone("agree").await;
    let run = Run { concurrency: 4, ..Run::default() };
    let placing = watched.producer.client.place_all(mixed_orders(4_000, 17), &run, |_| ());
    let bursting = async {
        for _ in 0..2 {
            let hold = watched.hold().await;
            let longest = watched
                .agree_until(async |inside, outside| inside.longest().min(outside.longest()) > 3.0)
                .await;
            assert!(longest > 3.0);
            hold.release().await;
            watched.agree_until(async |inside, _| inside.longest() < 0.5).await;
        }
    };

    let (placed, ()) = tokio::join!(placing, bursting);

    placed.unwrap();
    watched.agree_until(async |inside, outside| inside.is_drained() && outside.is_drained()).await;
}

/// The clock of the machine stays; records are as old as their writer says, and so the last one is an hour old.
#[tokio::test]
async fn after_an_hour_of_silence_nothing_is_behind_and_the_first_record_is_young() {
    let watched = Watched::alone("silence").await;
    let records = Records::of(&watched.world.pipeline).unwrap();
    records.believe_writers(Topic::Orders).await.unwrap();
    let an_hour_ago = Timestamp::now().as_micros() / 1000 - 3_600_000;
    let written_at = |time: i64| Record { timestamp_ms: Some(time), ..placed(OrderId::fresh()) };
    // The brokers hear of it in their own time.
    eventually(PATIENCE, "the last record of each partition is an hour old", async || {
        let old: Vec<Record> = (0..40).map(|_| written_at(an_hour_ago)).collect();
        records.write(Topic::Orders, &old).await?;
        let read = records.read(Topic::Orders).await?;
        let last = |partition| read.iter().rfind(|record| record.partition == partition);
        let times: Vec<Option<i64>> =
            (0..4).map(|partition| last(partition).and_then(|last| last.timestamp_ms)).collect();
        anyhow::ensure!(times.iter().all(|time| *time == Some(an_hour_ago)), "{times:?}");
        Ok(())
    })
    .await
    .unwrap();

    watched.expect_drained().await;
    let hold = watched.hold().await;
    let now = Timestamp::now().as_micros() / 1000;
    records.write(Topic::Orders, &[written_at(now)]).await.unwrap();

    let longest = watched.agree_until(async |inside, outside| {
        let waits = [inside, outside].map(Told::longest);
        assert!(waits.iter().all(|seconds| *seconds < 60.0), "{inside:?} {outside:?}");
        inside.sum() == 1.0 && outside.sum() == 1.0 && waits.iter().all(|seconds| *seconds > 2.0)
    });
    let longest = longest.await;
    let age = (Timestamp::now().as_micros() / 1000 - now) as f64 / 1000.0;
    assert!((longest - age).abs() < 2.0, "both tell {longest} s of a record that is {age} s old");
    hold.release().await;
    watched.expect_drained().await;
}

#[tokio::test]
async fn of_a_killed_stage_the_exporter_tells_the_truth() {
    let mut watched = Watched::alone("killed").await;
    watched.stage.kill().await.unwrap();

    watched.place(30).await;

    watched.inside().await.unwrap_err();
    expect_truth_outside(&watched, 30.0).await;
    expect_no_members(&watched).await;
    watched.stage.start_again(|_| ()).unwrap();
    watched.expect_drained().await;
}

#[tokio::test]
async fn of_a_frozen_stage_the_exporter_tells_the_truth() {
    let mut watched = Watched::alone("frozen").await;
    watched.stage.signal(Signal::STOP).unwrap();
    watched.stage.frozen(PATIENCE).await.unwrap();

    watched.place(30).await;

    expect_truth_outside(&watched, 30.0).await;
    expect_no_members(&watched).await;
    watched.inside().await.unwrap_err();
    watched.stage.signal(Signal::CONT).unwrap();
    watched.expect_drained().await;
}

#[tokio::test]
async fn one_stuck_partition_shows_among_those_that_go_on() {
    let watched = Watched::alone("stuck").await;
    let hold = watched.hold_partition(2).await;
    let progress = async |watched: &Watched, partition: &str| {
        let page = Page::of(watched.stage.admin()).await.unwrap();
        let labels = [("stage", "order"), ("partition", partition), ("topic", &watched.topic())];
        page.max("stage_last_progress_timestamp_seconds", &labels).unwrap()
    };
    let before = [progress(&watched, "2").await, progress(&watched, "1").await];

    watched.place(60).await;

    let alone = |told: &Told| {
        let waits = |(partition, lag): (&i32, &f64)| (*partition == 2) == (*lag > 0.0);
        told.records.len() == 4 && told.records.iter().all(waits)
    };
    watched.expect_inside("one partition waits", alone).await;
    watched.expect_outside("one partition waits", alone).await;
    watched
        .agree_until(async |inside, outside| {
            alone(inside) && inside.longest() > 3.0 && alone(outside)
        })
        .await;
    let page = watched.outside_page().await;
    let of = [("consumergroup", watched.group.as_str())];
    let stuck = page.find("kafka_consumergroup_partition_stuck", &of);
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    assert_eq!((stuck[0].label("partition"), stuck[0].value), ("2", 1.0));
    assert_eq!(progress(&watched, "2").await, before[0], "it has not moved");
    assert!(progress(&watched, "1").await > before[1], "others have");
    let (records, oldest) = watched.truth().await;
    let told = watched.inside().await.unwrap();
    assert_eq!(told.sum(), records);
    assert!((told.longest() - oldest).abs() < 1.0, "{told:?}, and the truth is {oldest}");
    hold.release().await;
    watched.expect_drained().await;
}

#[tokio::test]
async fn a_poisoned_record_is_no_lag_but_a_dead_letter() {
    let watched = Watched::alone("poisoned").await;
    let poison = Record { value: None, ..placed(OrderId::fresh()) };
    let records = Records::of(&watched.world.pipeline).unwrap();

    records.write(Topic::Orders, &[poison]).await.unwrap();
    watched.place(20).await;

    eventually(PATIENCE, "one dead letter waits", async || {
        let open = watched.stage.metric("dead_letters_open", &[("stage", "order")]).await?;
        anyhow::ensure!(open == Some(1.0), "{open:?}");
        Ok(())
    })
    .await
    .unwrap();
    watched.expect_drained().await;
}

#[tokio::test]
async fn what_a_transaction_took_back_is_waited_for_by_neither() {
    let watched = Watched::alone("aborted").await;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", watched.world.pipeline.brokers())
        .set("transactional.id", watched.world.pipeline.prefix().to_string());
    let client: BaseProducer = config.create().unwrap();
    client.init_transactions(PATIENCE).unwrap();
    let topic = watched.topic();

    for commit in [false, true, false] {
        client.begin_transaction().unwrap();
        for partition in 0..i32::try_from(SETUP.partitions).unwrap() {
            let Record { key, value, .. } = placed(OrderId::fresh());
            let (key, value) = (key.unwrap(), value.unwrap());
            let record = BaseRecord::to(&topic).partition(partition).key(&key).payload(&value);
            client.send(record).map_err(|(error, _)| error).unwrap();
        }
        client.flush(PATIENCE).unwrap();
        match commit {
            true => client.commit_transaction(PATIENCE).unwrap(),
            false => client.abort_transaction(PATIENCE).unwrap(),
        }
    }

    watched.expect_drained().await;
    let page = watched.outside_page().await;
    let ends = page.sum("kafka_topic_partition_current_offset", &[("topic", &topic)]).unwrap();
    assert_eq!(ends, 4.0 * 6.0, "markers and what was taken back have offsets");
}

#[tokio::test]
async fn what_retention_took_is_lost_and_what_is_left_waits() {
    let mut watched = Watched::beside("retention", &["payment"]).await;
    watched.stage.kill().await.unwrap();
    watched.place(40).await;
    let records = Records::of(&watched.world.pipeline).unwrap();
    records.delete_all(Topic::Orders).await.unwrap();

    watched.place(10).await;

    expect_truth_outside(&watched, 10.0).await;
    let of = [("consumergroup", watched.group.as_str()), ("topic", &watched.topic())];
    let lost = watched.outside_page().await.sum("kafka_consumergroup_lost_records", &of);
    assert_eq!(lost, Some(40.0));
    watched.stage.start_again(|_| ()).unwrap();
    eventually(PATIENCE, "the stage counts what it lost, and stops", async || {
        let lost = watched.stage.metric("stage_lost_records_total", &[("stage", "order")]).await?;
        anyhow::ensure!(lost > Some(0.0), "{lost:?} lost");
        Ok(())
    })
    .await
    .unwrap();
    watched.expect_inside("who stopped tells no lag", |told| told == &Told::default()).await;
}

#[tokio::test]
async fn of_a_topic_made_anew_the_exporter_says_that_all_of_it_waits() {
    all_of_a_topic_made_anew_waits("anew", 6).await;
}

/// By its offsets such a log could be the one that was read.
#[tokio::test]
async fn of_a_topic_made_anew_all_waits_also_when_it_is_longer_than_it_was() {
    all_of_a_topic_made_anew_waits("outgrown", 400).await;
}

async fn all_of_a_topic_made_anew_waits(name: &str, count: usize) {
    let watched = Watched::beside(name, &["payment"]).await;
    watched.place(40).await;
    watched.expect_drained().await;
    let records = Records::of(&watched.world.pipeline).unwrap();
    records.make_anew(Topic::Orders).await.unwrap();

    watched.place(count).await;

    watched.expect_outside("all of the new log waits", |told| told.sum() == count as f64).await;
    watched
        .expect_inside("who read another log tells no lag", |told| told == &Told::default())
        .await;
}

/// The exporter says what topic and table say, in records and in seconds, and goes on doing so.
async fn expect_truth_outside(watched: &Watched, records: f64) {
    watched.expect_outside("what waits", |told| told.sum() == records).await;
    let begun = watched.truth().await.1;
    loop {
        // One after the other: the truth takes seconds to read, and is of the moment when it was.
        let truth = watched.truth().await;
        let told = watched.outside().await;
        assert_eq!((told.sum(), truth.0), (records, records));
        assert!((told.longest() - truth.1).abs() < 1.0, "{told:?}, and the truth is {truth:?}");
        // It grows with the clock, whoever is dead.
        if truth.1 > begun + 2.0 {
            return;
        }
    }
}

async fn expect_no_members(watched: &Watched) {
    let session = Duration::from_secs(2);
    let waited = eventually(PATIENCE + session, "the broker counts no members", async || {
        let page = watched.outside_page().await;
        let of = [("consumergroup", watched.group.as_str())];
        let members = page.sum("kafka_consumergroup_members", &of);
        anyhow::ensure!(members == Some(0.0), "{members:?}");
        Ok(())
    });
    waited.await.unwrap();
}
