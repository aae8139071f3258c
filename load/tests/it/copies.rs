//! The topic of dead letters as somebody else made it: it may take less than a copy has, and must not hold up anything.

use std::collections::BTreeSet;

use load::eventually::eventually;
use load::records::{Record, Records};
use schemas::{OrderId, Topic};

use crate::events::{noise, placed};
use crate::world::{REST_PATIENCE, SETUP, World, plain_orders, run};

#[tokio::test]
async fn copies_that_are_too_large_for_their_topic_go_without_their_bytes() {
    let world = World::new("copies", SETUP).await;
    let records = Records::of(&world.pipeline).unwrap();
    records.limit(Topic::DeadLetters, 100_000).await.unwrap();
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    let large = Record { value: Some(noise(300_000)), ..placed(OrderId::fresh()) };
    let small = Record { key: None, ..placed(OrderId::fresh()) };
    records.write(Topic::Orders, &[large, small.clone()]).await.unwrap();
    producer.client.place_all(plain_orders(50, 40), &run(0), |_| ()).await.unwrap();

    world.expect_reconciled(50).await;
    let identity = |copy: &Record| {
        let part = |name| copy.header(name).map(<[u8]>::to_vec);
        ["dlq-stage", "dlq-original-topic", "dlq-original-partition", "dlq-original-offset"]
            .map(part)
    };
    // Told at least once, and at their own pace: one that went out beside one that was refused goes out again, the same.
    let mut copies = eventually(REST_PATIENCE, "every copy is out", async || {
        let copies = records.read(Topic::DeadLetters).await?;
        let different: BTreeSet<_> = copies.iter().map(identity).collect();
        anyhow::ensure!(different.len() >= 6, "{} copies", different.len());
        Ok(copies)
    })
    .await
    .unwrap();
    assert!(copies.iter().all(|copy| identity(copy).iter().all(Option::is_some)));
    copies.sort_by_key(identity);
    copies.dedup_by_key(|copy| identity(copy));
    let of = |code: &'static str| {
        copies.iter().filter(move |copy| copy.header("dlq-code") == Some(code.as_bytes()))
    };
    assert_eq!((copies.len(), of("too_large").count(), of("null_key").count()), (6, 3, 3));
    for copy in of("too_large") {
        assert_eq!(copy.value.as_deref(), Some(&[][..]));
        let omitted = String::from_utf8(copy.header("dlq-omitted-bytes").unwrap().to_vec());
        assert!(omitted.unwrap().parse::<u32>().unwrap() > 300_000);
        assert!(copy.header("dlq-original-offset").is_some(), "{:?}", copy.headers);
    }
    for copy in of("null_key") {
        assert_eq!((&copy.key, &copy.value), (&small.key, &small.value));
    }
    let kept = "select count(*) from dead_letters where octet_length(record_value) = 300000";
    let mut tables = world.pipeline.tables().await.unwrap();
    assert_eq!(tables.number(kept).await.unwrap(), 3);
}

#[tokio::test]
async fn copies_that_their_topic_never_takes_wait_until_it_does() {
    let world = World::new("refused", SETUP).await;
    let records = Records::of(&world.pipeline).unwrap();
    records.limit(Topic::DeadLetters, 100).await.unwrap();
    let stages = world.stages(&[]).await;
    let junk = Record { value: Some(b"junk".to_vec()), ..placed(OrderId::fresh()) };

    records.write(Topic::Orders, &[junk]).await.unwrap();

    let mut tables = world.pipeline.tables().await.unwrap();
    eventually(REST_PATIENCE, "both stages say so twice", async || {
        let said = stages.log().matches("telling them again").count();
        anyhow::ensure!(said >= 4, "it was said {said} times");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(tables.number("select count(*) from outbox").await.unwrap(), 2);
    assert!(records.read(Topic::DeadLetters).await.unwrap().is_empty());

    records.limit(Topic::DeadLetters, 1_000_000).await.unwrap();

    eventually(REST_PATIENCE, "the copies are out", async || {
        let copies = records.read(Topic::DeadLetters).await?.len();
        anyhow::ensure!(copies == 2, "{copies} copies");
        Ok(())
    })
    .await
    .unwrap();
    world.expect_sound().await;
}
