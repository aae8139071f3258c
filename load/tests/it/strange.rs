//! What clients other than ours may write: names that are no text, batches that expand to many times their size, and
//! transactions. Everything sound around it comes to its end, and no stage stands still.

use std::time::Duration;

use load::eventually::eventually;
use load::records::{Record, Records};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::{OrderId, Topic};

use crate::events::placed;
use crate::wire::{self, RawRecord};
use crate::world::{REST_PATIENCE, SETUP, World, plain_orders, run, unsupervised_stages};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_header_name_that_is_no_text_is_one_header_less() {
    let world = World::new("names", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    let mut one_more = RawRecord::from(placed(OrderId::fresh()));
    one_more.headers.push((b"\xc3\x28".to_vec(), Some(b"x".to_vec())));
    let mut no_type = RawRecord::from(placed(OrderId::fresh()));
    for (name, _) in no_type.headers.iter_mut().filter(|(name, _)| name == b"ce_type") {
        name.push(0xff);
    }
    let topic = world.pipeline.prefix().topic(Topic::Orders);
    wire::produce(world.pipeline.brokers(), &topic, 0, &[one_more, no_type]).await.unwrap();
    producer.client.place_all(plain_orders(50, 30), &run(0), |_| ()).await.unwrap();

    let audit = world.expect_reconciled(51).await;
    assert_eq!(audit.count("shipped"), 51, "{audit:#?}");
    let rows = world.pipeline.tables().await.unwrap();
    expect_letters(rows, "missing_header", 3, "'unreadable-header-name' = any(header_names)").await;
}

#[tokio::test]
async fn a_batch_that_expands_to_many_times_its_size_is_set_aside_record_by_record() {
    let world = World::new("bomb", SETUP).await;
    let stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    // All under one key: one batch of some kilobytes.
    let sound = placed(OrderId::fresh());
    let blown_up = |bytes| Record { value: Some(vec![b' '; bytes]), ..sound.clone() };
    let mut bomb = vec![blown_up(2_000_000); 20];
    bomb.insert(10, blown_up(30_000_000));
    let client = client(&world, &[("compression.type", "zstd"), ("linger.ms", "500")]);
    write(&world, &client, bomb);
    producer.client.place_all(plain_orders(50, 31), &run(0), |_| ()).await.unwrap();

    world.expect_reconciled(50).await;
    let rows = world.pipeline.tables().await.unwrap();
    expect_letters(rows, "too_large", 3 * 21, "octet_length(record_value) >= 2000000").await;
    expect_everything_passed(&world, &stages).await;
}

#[tokio::test]
async fn what_a_transaction_took_back_is_no_order_and_no_lag() {
    let world = World::new("aborted", SETUP).await;
    let mut stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let client =
        client(&world, &[("transactional.id", world.pipeline.prefix().to_string().as_str())]);
    let orders = |count| (0..count).map(|_| placed(OrderId::fresh())).collect::<Vec<_>>();
    client.init_transactions(PATIENCE).unwrap();

    client.begin_transaction().unwrap();
    write(&world, &client, orders(20));
    client.abort_transaction(PATIENCE).unwrap();
    producer.client.place_all(plain_orders(50, 32), &run(0), |_| ()).await.unwrap();
    client.begin_transaction().unwrap();
    write(&world, &client, orders(10));
    client.commit_transaction(PATIENCE).unwrap();
    world.expect_reconciled(60).await;
    // At the very end of the log, where nothing follows that would carry progress on.
    client.begin_transaction().unwrap();
    write(&world, &client, orders(20));
    client.abort_transaction(PATIENCE).unwrap();

    expect_everything_passed(&world, &stages).await;
    let audit = world.expect_reconciled(60).await;
    assert_eq!(audit.dead_lettered, 0, "{audit:#?}");
    // And where the one who claims the partition has nothing else to read.
    stages.stop(load::pipeline::STOP_PATIENCE).await.unwrap();
    client.begin_transaction().unwrap();
    write(&world, &client, orders(20));
    client.abort_transaction(PATIENCE).unwrap();
    stages.start_again(|_| ()).unwrap();
    crate::world::ready(&mut stages).await;
    expect_everything_passed(&world, &stages).await;
    world.expect_reconciled(60).await;
}

/// Progress of every stage is at the end of its topics, and its lag says so.
async fn expect_everything_passed(world: &World, stages: &load::process::Process) {
    let records = Records::of(&world.pipeline).unwrap();
    let mut tables = world.pipeline.tables().await.unwrap();
    for stage in unsupervised_stages() {
        let group = world.pipeline.prefix().group(stage.name);
        eventually(REST_PATIENCE, "a stage has passed everything", async || {
            let mut ends = 0;
            for topic in stage.topics() {
                ends += records.offsets(topic).await?;
            }
            let progress = format!(
                "select sum(next_offset)::bigint from stage_progress where stage = '{}'",
                stage.name
            );
            let progress = tables.number(&progress).await?;
            anyhow::ensure!(progress == ends, "{} is at {progress} of {ends}", stage.name);
            let lag =
                stages.metric("kafka_consumergroup_lag", &[("consumergroup", &group)]).await?;
            anyhow::ensure!(lag == Some(0.0), "{} says that it is {lag:?} behind", stage.name);
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// All open dead letters are `count` of `code`, each of which is as `condition` says.
async fn expect_letters(
    mut tables: load::pipeline::Tables,
    code: &str,
    count: i64,
    condition: &str,
) {
    let all = "select count(*) from dead_letters where state = 'open'";
    let these = format!("{all} and code = '{code}' and {condition}");
    assert_eq!(tables.number(&these).await.unwrap(), count);
    assert_eq!(tables.number(all).await.unwrap(), count);
}

/// A client that writes batches as large as the library allows.
fn client(world: &World, more: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.pipeline.brokers())
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", "500000000")
        .set("batch.size", "500000000");
    for (name, value) in more {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

fn write(world: &World, client: &BaseProducer, records: Vec<Record>) {
    let topic = world.pipeline.prefix().topic(Topic::Orders);
    for record in &records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_deref() })
        });
        let mut out: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).headers(headers);
        out.key = record.key.as_deref();
        out.payload = record.value.as_deref();
        client.send(out).map_err(|(error, _)| error).unwrap();
    }
    client.flush(PATIENCE).unwrap();
}
